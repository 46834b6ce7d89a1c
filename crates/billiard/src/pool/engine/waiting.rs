//! Waiting for a job. The first thread that waits leads: it looks at the rings itself. Others follow: they sleep until the
//! leader, or the background thread, finds their result.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};

use super::super::job::Job;
use super::super::seat::Waiter;
use super::reactor::Follower;
use super::{Core, EngineError, Inner};
use crate::sys::Interrupts;
use crate::sys::poll::{Woken, readable};
use crate::sys::{Deadline, EventFd, now};

/// How an attempt to wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is something to take, or the job has ended.
    News,
    /// The deadline passed.
    TimedOut,
    /// A signal handler ran; look at it, then go on.
    Interrupted,
}

#[derive(Debug)]
enum Role {
    /// Does nothing for the pool. Whoever is not inside [`Waiting::spin`] or [`Waiting::sleep`] may be away for long (in a
    /// signal handler, which may even wait for another job of the same pool), so nobody may rely on it.
    Bystander,
    Leader,
    Follower(Arc<EventFd>),
}

/// A thread that waits for a job. Dropping it ends the wait.
#[derive(Debug)]
pub struct Waiting<'e> {
    inner: &'e Inner,
    job: &'e Arc<Job>,
    role: Role,
}

impl<'e> Waiting<'e> {
    pub(super) fn new(inner: &'e Inner, job: &'e Arc<Job>) -> Result<Self, EngineError> {
        let mut core = inner.enter()?;
        job.watch();
        let role = if core.led {
            Role::Bystander
        } else {
            core.led = true;
            inner.hub.set_waiter(Waiter::Awake);
            Role::Leader
        };
        drop(core);
        Ok(Self { inner, job, role })
    }

    /// Looks, busily for a moment if that has paid lately. Whether there are news.
    pub fn spin(&mut self) -> bool {
        let found = self.job.has_news() || self.look_busily();
        if !found {
            // What cannot be entered belongs to another process, and is led there.
            let _ = self.step_back();
        }
        found
    }

    fn look_busily(&self) -> bool {
        if !matches!(self.role, Role::Leader) {
            return false;
        }
        let spin = self.inner.spin.lock().unwrap_or_else(PoisonError::into_inner);
        spin.until(|| {
            // Whoever holds the lock is looking at the rings already.
            if let Ok(mut core) = self.inner.core.try_lock()
                && core.turn() > 0
            {
                self.inner.after(&mut core);
            }
            self.job.has_news()
        })
    }

    /// Leads no more for now: the background thread looks after the rings until somebody leads again.
    fn step_back(&mut self) -> Result<(), EngineError> {
        if matches!(self.role, Role::Leader) {
            let mut core = self.inner.enter()?;
            self.role = Role::Bystander;
            core.led = false;
            self.inner.stand_down(&mut core);
            self.inner.after(&mut core);
            if core.driven {
                self.inner.hand_back();
            }
        }
        Ok(())
    }

    /// Sleeps until there are news. `interrupts` end the wait too.
    ///
    /// # Blocking
    /// Until the job makes progress, the deadline, or a signal handler.
    pub fn sleep(
        &mut self,
        deadline: Deadline,
        interrupts: Option<Interrupts<'_>>,
    ) -> Result<Outcome, EngineError> {
        loop {
            let woken = self.sleep_once(deadline, interrupts)?;
            let outcome = match woken {
                _ if self.job.has_news() => Outcome::News,
                Woken::Ready => continue,
                Woken::TimedOut => Outcome::TimedOut,
                Woken::Interrupted => Outcome::Interrupted,
            };
            if outcome != Outcome::News {
                self.step_back()?;
            }
            return Ok(outcome);
        }
    }

    fn sleep_once(
        &mut self,
        deadline: Deadline,
        interrupts: Option<Interrupts<'_>>,
    ) -> Result<Woken, EngineError> {
        let inner = self.inner;
        let mut core = inner.enter()?;
        if self.job.has_news() {
            return Ok(Woken::Ready);
        }
        if core.led && !matches!(self.role, Role::Leader) {
            let bell = self.follow(&mut core)?;
            drop(core);
            let woken = readable(&[bell.as_fd()], deadline, interrupts);
            bell.clear();
            return woken.map_err(super::os("wait for a result"));
        }
        if let Role::Follower(bell) = &self.role {
            core.followers.retain(|f| !Arc::ptr_eq(&f.bell, bell));
        }
        self.role = Role::Leader;
        core.led = true;
        // SYNC(hub.waiter): what is published after this rings for us; what was published before is taken here.
        inner.hub.set_waiter(Waiter::Leader);
        core.leader_sleeps = true;
        let driven = core.driven;
        core.turn();
        inner.after(&mut core);
        drop(core);
        if self.job.has_news() {
            return self.rise().map(|()| Woken::Ready);
        }
        let slept = now();
        let woken = if driven {
            // There is no background thread that would see to exits and deadlines meanwhile.
            let woken = readable(&[inner.hub.leader.as_fd(), inner.poller.as_fd()], deadline, interrupts);
            inner.pump()?;
            woken
        } else {
            readable(&[inner.hub.leader.as_fd()], deadline, interrupts)
        };
        self.rise()?;
        inner.spin.lock().unwrap_or_else(PoisonError::into_inner).slept(now().since(slept));
        woken.map_err(super::os("wait for a result"))
    }

    /// The leader is awake again.
    fn rise(&self) -> Result<(), EngineError> {
        let mut core = self.inner.enter()?;
        self.inner.hub.set_waiter(Waiter::Awake);
        core.leader_sleeps = false;
        self.inner.hub.leader.clear();
        core.turn();
        self.inner.after(&mut core);
        Ok(())
    }

    /// The bell that the leader, or the background thread, rings when there are news.
    fn follow(&mut self, core: &mut Core) -> Result<Arc<EventFd>, EngineError> {
        if let Role::Follower(bell) = &self.role {
            return Ok(Arc::clone(bell));
        }
        let bell: io::Result<EventFd> = EventFd::new();
        let bell = Arc::new(bell.map_err(super::os("make a doorbell for a waiting thread"))?);
        core.followers.push(Follower { job: Arc::clone(self.job), bell: Arc::clone(&bell) });
        self.role = Role::Follower(Arc::clone(&bell));
        Ok(bell)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.job.unwatch();
        let Ok(mut core) = self.inner.enter() else { return };
        match &self.role {
            Role::Bystander => {}
            Role::Follower(bell) => {
                core.followers.retain(|f| !Arc::ptr_eq(&f.bell, bell));
                // Its bell may have been rung to make it the leader; the background thread looks until somebody else is.
            }
            Role::Leader => {
                core.led = false;
                // Somebody else may want to lead; until then the timer looks after the rings.
                if let Some(next) = core.followers.first() {
                    next.bell.ring();
                }
                core.polling = true;
                core.active = true;
                self.inner.set_timer(&mut core);
            }
        }
    }
}
