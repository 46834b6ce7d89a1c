//! What can go wrong with a connection.

use std::io;
use std::os::fd::RawFd;

use super::auth::AuthError;
use super::frame::FrameError;

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnError {
    /// The peer closed its end between two messages: the regular end of a conversation.
    #[error("the peer closed the connection")]
    Closed,
    /// The stream ended inside a message.
    #[error("got end of file during message ({got} of {want} bytes)")]
    Torn {
        /// How much of it has arrived.
        got: u64,
        /// How long it was to be.
        want: u64,
    },
    /// The head announced more than this side accepts. The message has not been read, so that nothing after it can be.
    #[error("bad message length: {announced} bytes are announced, {limit} accepted")]
    TooLong {
        /// What the head says.
        announced: u64,
        /// What the caller said.
        limit: u64,
    },
    /// The head is none.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// An earlier message was only sent in part, so that nothing can follow it.
    #[error("an earlier message was sent only in part; close the connection and open another")]
    Broken,
    /// The descriptor is in non-blocking mode, and nothing, or only a part, could be done at once.
    #[error("the connection is in non-blocking mode and not ready")]
    WouldBlock,
    /// There is no descriptor with this number.
    #[error("invalid file descriptor {0}")]
    NotOpen(RawFd),
    /// The peer does not hold the key, or does not speak as one who could.
    #[error(transparent)]
    Auth(#[from] AuthError),
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

pub(super) fn os(doing: &'static str) -> impl FnOnce(io::Error) -> ConnError {
    move |source| ConnError::Os { doing, source }
}
