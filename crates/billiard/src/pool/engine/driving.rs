//! An engine that its owner drives, instead of a background thread: an event loop watches one descriptor, and looks after the
//! rings, the exits and the deadlines whenever it is readable. No thread of ours exists then, and whatever is told is told on
//! the thread of the loop.
//!
//! The descriptor is that of the set in which the doorbell, the timer and the workers' process descriptors are: it is
//! readable exactly when a background thread would have something to do. While nothing happens, nothing wakes the loop.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, PoisonError};

use super::super::job::Job;
use super::{Engine, EngineError, Event, Inner, background, os};
use crate::sys::poll::{Woken, readable};
use crate::sys::{Deadline, Interrupts};

impl Engine {
    /// The caller drives the engine from now on; call it in place of [`Engine::run`].
    pub fn drive(&self) -> Result<(), EngineError> {
        self.inner.enter()?.driven = true;
        self.pump()
    }

    /// Readable when [`Engine::pump`] has something to do.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.inner.poller.as_fd()
    }

    /// Looks after everything that is due; what the owner is to hear of is there for [`Engine::take_event`] then. Never waits.
    pub fn pump(&self) -> Result<(), EngineError> {
        self.inner.pump()
    }

    /// The next event for an owner who drives the engine. Starts come last: a process that is being made keeps the others
    /// waiting.
    #[must_use]
    pub fn take_event(&self) -> Option<Event> {
        let mut queue = self.inner.service.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let first = queue.iter().position(|event| !matches!(event, Event::Start(_))).unwrap_or(0);
        queue.remove(first)
    }

    /// Forgets what there is to tell about jobs, and answers those that have ended. What is told about workers stays.
    pub fn forget_jobs(&self) -> Vec<Arc<Job>> {
        let mut queue = self.inner.service.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ended = Vec::new();
        for event in std::mem::take(&mut *queue) {
            match event {
                Event::Done(job) => ended.push(job),
                Event::Accepted { .. } | Event::SoftLimit { .. } => {}
                other => queue.push_back(other),
            }
        }
        ended
    }

    /// The owner could not take all events: the descriptor stays readable until it has.
    pub fn remind(&self) {
        self.inner.hub.background.ring();
    }

    /// Sleeps until [`Engine::pump`] has something to do, for an owner who has no event loop. `interrupts` end the wait too.
    ///
    /// # Blocking
    /// Until then, the deadline, or a signal handler.
    pub fn idle(&self, deadline: Deadline, interrupts: Option<Interrupts<'_>>) -> Result<Woken, EngineError> {
        self.is_mine()?;
        readable(&[self.descriptor()], deadline, interrupts).map_err(os("wait for the workers"))
    }

    /// Takes back what no worker has claimed of the jobs that `wanted` names, and answers which jobs have ended with that.
    /// They will not run, and [`Event::Done`] is not told of them. `wanted` runs under the engine's lock and must not wait.
    pub fn withdraw(&self, wanted: impl Fn(&Job) -> bool) -> Result<Vec<Arc<Job>>, EngineError> {
        let mut core = self.inner.enter()?;
        core.turn();
        let jobs = core.withdraw(wanted);
        self.inner.after(&mut core);
        Ok(jobs)
    }
}

impl Inner {
    /// A thread that waited, and saw to exits and deadlines meanwhile, does so no more: the owner has to look.
    pub(super) fn hand_back(&self) {
        if !self.service.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            self.hub.background.ring();
        }
    }

    pub(super) fn pump(&self) -> Result<(), EngineError> {
        let mut tokens = Vec::new();
        let mut core = self.enter()?;
        // What cannot be read now is looked for anyway.
        let _ = self.poller.look(&mut tokens);
        core.pumping = true;
        background::heed(self, &mut core, &tokens);
        background::look(self, &mut core);
        core.pumping = false;
        Ok(())
    }
}
