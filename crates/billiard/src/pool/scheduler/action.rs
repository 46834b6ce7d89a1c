//! The words between the scheduler and the engine.

use std::time::Duration;

use super::restart::RestartPolicy;
use super::roster::WorkerId;
use super::tasks::TaskKey;
use crate::sys::{ExitStatus, Moment};

/// The rings, as the scheduler sees them.
pub trait Channels {
    /// What a task carries on its way to a worker.
    type Body;

    /// Puts a task into a worker's ring and wakes the worker if it sleeps; gives the body back if there is no room.
    fn hand(&mut self, worker: WorkerId, task: TaskKey, body: Self::Body) -> Result<(), Self::Body>;

    /// Takes a task back out of a worker's ring unless the worker has claimed it.
    fn recall(&mut self, worker: WorkerId, task: TaskKey) -> Option<Self::Body>;

    /// What the worker has claimed and not yet finished, and since when.
    fn running(&self, worker: WorkerId) -> Option<(TaskKey, Moment)>;
}

/// Why a task ended without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The worker died while it ran the task.
    Lost {
        /// Who.
        worker: WorkerId,
        /// How the worker ended.
        status: ExitStatus,
        /// How long the task had been running.
        ran: Duration,
    },
    /// The hard limit fired.
    TimeLimit {
        /// Who ran it.
        worker: WorkerId,
        /// The limit that was passed.
        limit: Duration,
    },
    /// Somebody ended the pool, or this very job.
    Terminated {
        /// How the worker ended, if one was running the task.
        status: Option<ExitStatus>,
    },
    /// No worker can be started any more.
    Broken,
}

/// What the engine must do in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<T> {
    /// Tell the owner that its task ended without a result.
    Fail {
        /// Whose task.
        tag: T,
        /// The reason.
        why: Failure,
    },
    /// Start a worker process for this seat.
    Start(WorkerId),
    /// Write down where the worker's interpreter is, since a limit is about to fire.
    Inspect(WorkerId),
    /// The task has passed its soft limit: tell its owner, then interrupt exactly this task.
    Interrupt {
        /// Whose task.
        tag: T,
        /// Who runs it.
        worker: WorkerId,
        /// What to interrupt.
        task: TaskKey,
        /// The limit that was passed.
        limit: Duration,
    },
    /// Ask the worker to terminate, with its group if it leads one.
    Terminate(WorkerId),
    /// End the worker by force, with its group if it leads one.
    Kill(WorkerId),
    /// Ask the worker to leave once its ring is empty.
    Retire(WorkerId),
    /// The pool can start no workers any more.
    Broke,
}

/// Where the pool is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Work is accepted.
    Running,
    /// No new work; what was accepted is finished.
    Draining,
    /// Everything ends now.
    Terminating,
    /// Workers could not be started; everything pending has failed.
    Broken,
}

/// What a pool is told at its birth.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many workers there should be.
    pub workers: u32,
    /// Tasks after which a worker is replaced.
    pub tasks_per_worker: Option<u32>,
    /// When to give up restarting.
    pub restart: RestartPolicy,
}
