//! Message queues between processes: many producers, many consumers, in order, and none of them can take anything from the
//! others by being killed. How that is done: see the README beside this file.

mod chain;
mod error;
mod getting;
mod handle;
mod layout;
mod loans;
mod lock;
mod messages;
mod parcel;
mod putting;
mod store;
mod tasks;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
mod totals;
mod warmth;
mod watch;
mod writers;

pub use error::QueueError;
pub use getting::Got;
pub use handle::Queue;
pub use messages::{Message, Messages};
pub use parcel::{AsLetter, Draft, Letter, Parcel};
pub use putting::{Drafting, MOST_DRAFTS, Put};
pub use writers::Writers;
