//! Connections that keep messages apart: pipes, sockets, listeners, and proof that both ends hold the same key.
//!
//! What is decided is apart from what is read and written: [`frame`], [`auth`] and [`handshake`] know no descriptors. The rest
//! waits for descriptors, and goes on where it was interrupted. `README.md` beside this file tells what goes over the wire.

pub mod auth;
pub mod cargo;
mod connection;
mod conversation;
mod doorman;
mod error;
pub mod frame;
pub mod handshake;
mod listener;
pub mod transport;
mod wait;

pub use auth::Md5Policy;
pub use connection::{Connection, Received, duplex, pipe};
pub use doorman::{Admitted, Doorman, MOST_VISITORS, PATIENCE};
pub use error::ConnError;
pub use listener::{Address, Introduced, Introduction, Listener, connect};
pub use transport::Pause;
pub use wait::{Awaitable, WaitSet, wait};
