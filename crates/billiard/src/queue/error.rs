//! What can go wrong with a queue.

use std::io;

/// Why a queue could not do something.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// Some process has written to the queue's memory what cannot be there.
    #[error("the queue's shared memory is corrupt; make a new queue")]
    Corrupt,
    /// What was received is no queue of this version.
    #[error("the descriptor is not that of a queue of this version")]
    Foreign,
    /// The queue's address space is used up, or the message is larger than it.
    #[error("no room for a message of {len} bytes; get some first")]
    NoRoom {
        /// The message's length.
        len: usize,
    },
    /// More tasks were reported as done than had been put.
    #[error("task_done() called too many times")]
    TooManyDone,
    /// The kernel refused.
    #[error("cannot {doing}")]
    Os {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

pub(super) trait Doing<T> {
    fn doing(self, what: &'static str) -> Result<T, QueueError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, QueueError> {
        self.map_err(|source| QueueError::Os { doing, source })
    }
}
