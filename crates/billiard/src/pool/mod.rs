//! The pool: rings, scheduler, engine, worker runtime.

pub mod engine;
mod forked;
mod job;
mod message;
mod ring;
pub mod scheduler;
mod seat;

mod wake;
mod worker;

pub use forked::{Handler, Pending, Pool, RequestError, Settings};
pub use job::{Job, Notify, Report, Shape, Verdict};
pub use message::Message;
pub use seat::{Hub, Seat};
pub use worker::{INLINE_MOST, Order, Placed, Runtime, WorkerError};
