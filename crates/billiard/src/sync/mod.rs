//! Locks, semaphores, conditions, events and barriers between processes, in shared memory, on futexes.
//!
//! ```
//! use billiard::sync::Lock;
//! use billiard::sys::{Deadline, Wait};
//!
//! let lock = Lock::new()?;
//! assert!(matches!(lock.acquire(Deadline::Never)?, Wait::Ready(_)));
//! // Forked children share it. One that is started afresh is sent `lock.cell().parcel()`, and makes `Lock::from_cell` of it.
//! lock.release()?;
//! # Ok::<(), billiard::sync::SyncError>(())
//! ```
//!
//! Any participant may be killed at any instant. `README.md` beside this file tells what becomes of the others, and why.

mod barrier;
mod condition;
mod event;
mod ledger;
mod lock;
#[cfg(all(test, loom))]
mod model;
mod semaphore;
mod waiter;
mod watch;
mod word;

use std::io;

pub use barrier::{Arrival, Barrier, BarrierState};
pub use condition::{Condition, Ticket};
pub use event::{Event, Since};
pub use lock::{Acquired, Lock, RLock};
pub use semaphore::Semaphore;

use crate::arena::CellError;

/// What cannot be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The lock is free, or the semaphore is at its maximum.
    #[error("semaphore or lock released too many times")]
    ReleasedTooOften,
    /// Only the thread that holds a recursive lock releases it.
    #[error("attempt to release recursive lock not owned by thread")]
    NotOwned,
    /// A semaphore cannot have this value.
    #[error("{value} is not between 0 and {most}")]
    Value {
        /// What was asked for.
        value: u32,
        /// What is possible.
        most: u32,
    },
    /// There is no shared memory for it.
    #[error(transparent)]
    Cell(#[from] CellError),
    /// The system refused.
    #[error("cannot {doing}")]
    Os {
        /// What.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn cannot_wait(source: io::Error) -> SyncError {
    SyncError::Os { doing: "wait", source }
}

/// A received cell must be large enough for what it is said to hold.
fn check_size(cell: &crate::arena::Cell, least: usize) -> Result<(), SyncError> {
    if cell.len() < least { Err(CellError::NotOurs.into()) } else { Ok(()) }
}

/// Wakes sleepers; nothing can be wrong with a word that is mapped.
fn wake(word: &std::sync::atomic::AtomicU32, most: u32) -> usize {
    let woken = crate::sys::futex::wake(word, most);
    debug_assert!(woken.is_ok(), "{woken:?}");
    woken.unwrap_or(0)
}
