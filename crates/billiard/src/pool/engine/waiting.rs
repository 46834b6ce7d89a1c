//! Waiting for a job. The first thread that waits leads: it looks at the rings itself. Others follow: they sleep until the
//! leader, or the background thread, finds their result.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};

use super::super::job::Job;
use super::super::seat::Waiter;
use super::reactor::Follower;
use super::{Core, EngineError, Inner};
use crate::sys::poll::{Woken, readable};
use crate::sys::signal::Mask;
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
        job.watch(true);
        let mut core = inner.enter()?;
        let role = if core.led {
            Role::Follower(Self::follow(&mut core, job)?)
        } else {
            lead(inner, &mut core);
            Role::Leader
        };
        drop(core);
        Ok(Self { inner, job, role })
    }

    fn follow(core: &mut Core, job: &Arc<Job>) -> Result<Arc<EventFd>, EngineError> {
        let bell = EventFd::new().map_err(super::os("make a doorbell for a waiting thread"))?;
        let bell = Arc::new(bell);
        core.followers.push(Follower { job: Arc::clone(job), bell: Arc::clone(&bell) });
        Ok(bell)
    }

    /// Looks, busily for a moment if that has paid lately. Whether there are news.
    pub fn spin(&mut self) -> bool {
        if self.job.has_news() {
            return true;
        }
        match &self.role {
            Role::Follower(_) => false,
            Role::Leader => {
                let mut spin = self.inner.spin.lock().unwrap_or_else(PoisonError::into_inner);
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
        }
    }

    /// Sleeps until there are news. With `open`, signals in it are let in for exactly the wait.
    ///
    /// # Blocking
    /// Until the job makes progress, the deadline, or a signal handler.
    pub fn sleep(&mut self, deadline: Deadline, open: Option<&Mask>) -> Result<Outcome, EngineError> {
        loop {
            if let Role::Follower(bell) = &self.role {
                let bell = Arc::clone(bell);
                let mut core = self.inner.enter()?;
                if self.job.has_news() {
                    return Ok(Outcome::News);
                }
                if core.led {
                    drop(core);
                    let woken = readable(&[bell.as_fd()], deadline, open);
                    bell.clear();
                    if let Some(outcome) = self.outcome(woken)? {
                        return Ok(outcome);
                    }
                } else {
                    core.followers.retain(|f| !Arc::ptr_eq(&f.bell, &bell));
                    lead(self.inner, &mut core);
                    drop(core);
                    self.role = Role::Leader;
                }
                continue;
            }
            let mut core = self.inner.enter()?;
            // SYNC(hub.waiter): what is published after this rings for us; what was published before is taken here.
            self.inner.hub.set_waiter(Waiter::Leader);
            core.leader_sleeps = true;
            core.turn();
            self.inner.after(&mut core);
            let slept = now();
            let woken = if self.job.has_news() {
                drop(core);
                Ok(Woken::Ready)
            } else {
                drop(core);
                readable(&[self.inner.hub.leader.as_fd()], deadline, open)
            };
            let mut core = self.inner.enter()?;
            self.inner.hub.set_waiter(Waiter::Awake);
            core.leader_sleeps = false;
            self.inner.hub.leader.clear();
            core.turn();
            self.inner.after(&mut core);
            drop(core);
            self.inner.spin.lock().unwrap_or_else(PoisonError::into_inner).slept(now().since(slept));
            if let Some(outcome) = self.outcome(woken)? {
                return Ok(outcome);
            }
        }
    }

    fn outcome(&self, woken: io::Result<Woken>) -> Result<Option<Outcome>, EngineError> {
        let woken = woken.map_err(super::os("wait for a result"))?;
        Ok(if self.job.has_news() {
            Some(Outcome::News)
        } else {
            match woken {
                Woken::Ready => None,
                Woken::TimedOut => Some(Outcome::TimedOut),
                Woken::Interrupted => Some(Outcome::Interrupted),
            }
        })
    }
}

fn lead(inner: &Inner, core: &mut Core) {
    core.led = true;
    inner.hub.set_waiter(Waiter::Awake);
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Ok(mut core) = self.inner.enter() else { return };
        match &self.role {
            Role::Follower(bell) => core.followers.retain(|f| !Arc::ptr_eq(&f.bell, bell)),
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
        if !core.followers.iter().any(|f| Arc::ptr_eq(&f.job, self.job)) {
            self.job.watch(false);
        }
    }
}
