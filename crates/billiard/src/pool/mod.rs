//! The pool: rings, scheduler, engine, worker runtime.

pub mod scheduler;
