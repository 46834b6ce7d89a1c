//! Process pools with soft and hard time limits, exact knowledge of lost work, and channels in shared memory.
//!
//! The rooms, from the bottom up; a room uses what is below it, never what is above:
//!
//! | room | what lives there |
//! |---|---|
//! | [`sys`] | the only room that talks to the kernel |
//! | [`arena`] | shared-memory segments, and what is allocated in them: extents, cells |
//! | [`sync`] | locks, semaphores, conditions, events and barriers between processes |
//! | [`process`] | child processes: zygotes that fork them, handles that know how they end, watches that end orphans |
//! | [`conn`] | framed connections, listeners, mutual authentication, waiting for many |
//! | [`queue`] | message queues of many producers and many consumers, any of which may be killed at any instant |
//! | [`manager`] | serves objects to many clients over connections; knows what each of them asks, and runs nothing of theirs |
//! | [`pool`] | rings, scheduler, engine, worker runtime |

pub mod arena;
pub mod conn;
mod failpoint;
pub mod manager;
pub mod pool;
mod primitives;
pub mod process;
pub mod queue;
pub mod sync;
pub mod sys;
