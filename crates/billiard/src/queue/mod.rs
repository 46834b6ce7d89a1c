//! Message queues between processes: many producers, many consumers, in order, and none of them can take anything from the
//! others by being killed. How that is done: see the README beside this file.

mod chain;
mod error;
mod handle;
mod layout;
mod lock;
mod store;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
mod watch;
mod writers;

pub use chain::Messages;
pub use error::QueueError;
pub use handle::{Got, Put, Queue};
pub use writers::Writers;
