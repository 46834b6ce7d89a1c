//! What an engine can tell about itself, for those who look after it.

use std::sync::Arc;
use std::time::Duration;

use super::super::scheduler::{Failure, WorkerState};
use super::{Engine, EngineError};
use crate::sys::now;

/// What has become of the tasks of a pool, and of its workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Tasks whose function has returned or raised.
    pub finished: u64,
    /// Tasks that were lost with their worker.
    pub lost: u64,
    /// Tasks that have passed their hard limit.
    pub overdue: u64,
    /// Tasks that were ended on request, alone or with the pool.
    pub terminated: u64,
    /// Tasks that never ran, since no worker could be started.
    pub broken: u64,
    /// Tasks that the owner has taken back.
    pub withdrawn: u64,
    /// How often a task that no worker had claimed was taken from one, to be run by another one.
    pub recalled: u64,
    /// Workers that have ended.
    pub exits: u64,
}

impl Totals {
    pub(super) const fn count(&mut self, why: &Failure) {
        let counter = match why {
            Failure::Lost { .. } => &mut self.lost,
            Failure::TimeLimit { .. } => &mut self.overdue,
            Failure::Terminated { .. } => &mut self.terminated,
            Failure::Broken => &mut self.broken,
        };
        *counter += 1;
    }
}

/// One worker.
#[derive(Clone, Debug)]
pub struct Colleague {
    /// Its process id.
    pub pid: i32,
    /// What the owner calls it.
    pub name: Arc<str>,
    /// How far it is in its life.
    pub state: WorkerState,
    /// Tasks that it has finished.
    pub finished: u64,
    /// Tasks that lie in its ring or run.
    pub handed: usize,
    /// For how long the running task has been running.
    pub busy: Option<Duration>,
}

/// The state of a pool at one moment.
#[derive(Clone, Debug)]
pub struct Figures {
    /// What has become of the tasks.
    pub totals: Totals,
    /// Tasks that have not ended.
    pub pending: usize,
    /// Those among them that no worker has been given.
    pub queued: usize,
    /// The workers, by seat.
    pub workers: Vec<Colleague>,
}

impl Engine {
    /// What is going on.
    pub fn figures(&self) -> Result<Figures, EngineError> {
        let core = self.inner.enter()?;
        let time = now();
        let workers = core.desks.iter().filter_map(|desk| {
            let id = desk.seat.id();
            let running = desk.seat.running().filter(|(key, _)| core.scheduler.tag(*key).is_some());
            Some(Colleague {
                pid: desk.child.pid(),
                name: Arc::clone(&desk.name),
                state: core.scheduler.state(id)?,
                finished: desk.finished,
                handed: core.scheduler.load(id),
                busy: running.map(|(_, since)| time.since(since)),
            })
        });
        let recalled = core.desks.iter().map(|desk| desk.recalled).sum::<u64>();
        Ok(Figures {
            workers: workers.collect(),
            totals: Totals { recalled: core.totals.recalled + recalled, ..core.totals },
            pending: core.scheduler.pending(),
            queued: core.scheduler.queued(),
        })
    }
}
