//! The engine's vocabulary: what it is made of, what it tells its owner, and why it refuses.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::super::job::Job;
use super::super::scheduler::{Phase, RestartPolicy, WorkerId};
use crate::sys::{ExitStatus, Moment};

/// Which signal means what to the workers.
#[derive(Clone, Copy, Debug)]
pub struct Signals {
    /// Asks a worker to end.
    pub terminate: i32,
    /// Interrupts the running task.
    pub soft: i32,
    /// Makes the worker write down where it is.
    pub inspect: i32,
}

/// What an engine is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many workers.
    pub workers: u32,
    /// Tasks after which a worker is replaced.
    pub tasks_per_worker: Option<u32>,
    /// When to give up restarting.
    pub restart: RestartPolicy,
    /// Which signal means what.
    pub signals: Signals,
    /// Whether waiting may spin for a moment: more than one processor is usable.
    pub spin: bool,
}

/// Something for the owner's service thread.
#[derive(Debug)]
pub enum Event {
    /// Start a process for this worker: [`Engine::seat`], fork, then [`Engine::started`] or [`Engine::not_started`].
    Start(WorkerId),
    /// The worker has run its initializer.
    Up(WorkerId),
    /// The worker's process has ended.
    Exited {
        /// Who.
        worker: WorkerId,
        /// Its process id.
        pid: i32,
        /// How.
        status: ExitStatus,
        /// What it had written about its end.
        last_words: Option<String>,
    },
    /// A job that wanted to be told has ended.
    Done(Arc<Job>),
    /// A worker has begun a part of a job that wanted to be told.
    Accepted {
        /// Which job.
        job: Arc<Job>,
        /// Which part.
        part: u32,
        /// The worker's process id.
        pid: i32,
        /// When.
        at: Moment,
    },
    /// A soft limit fires.
    SoftLimit {
        /// Which job.
        job: Arc<Job>,
        /// Which part.
        part: u32,
        /// The limit.
        limit: Duration,
    },
    /// Jobs have ended while nobody was looking; see [`Engine::take_ended`].
    Ended,
    /// No worker can be started any more.
    Broke,
    /// The last worker is gone and nothing is pending.
    Over,
}

/// Why the engine does not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The pool was made by another process; this is a forked copy.
    #[error("this pool belongs to the process that made it; make a pool of your own in a forked child")]
    WrongProcess,
    /// The pool does not accept work any more.
    #[error("pool is {}", match .0 { Phase::Running => "running", Phase::Draining => "closed", Phase::Terminating => "terminated", Phase::Broken => "broken" })]
    NotRunning(Phase),
    /// There are not enough idle workers.
    #[error("cannot shrink the pool by {0}: all other workers are busy")]
    AllBusy(u32),
    /// The kernel refused something.
    #[error("cannot {doing}")]
    Os {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}
