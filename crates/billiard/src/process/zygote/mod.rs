//! A process that is started once, loads what all children need, and is then forked whenever a child is wanted.
//!
//! A child starts as fast as a fork, whatever its owner's process looks like: threads, locks and memory of the owner are not
//! there. The owner holds a [`Zygote`], the process itself runs a [`Server`]; between them is one unnamed socket, so there is
//! nothing to find, to guess or to leave behind.
//!
//! A child introduces itself to the owner, with a descriptor of its own process, so a child that runs is always known, even
//! if the zygote is killed right after the fork. The zygote, which is the child's parent for the kernel, takes the exit
//! status and passes it on; if it is gone, newer kernels tell the owner themselves.

mod account;
mod client;
mod server;
mod wire;

pub use client::{Progress, Start, Zygote, ZygoteError};
pub use server::{Birth, Order, Server};
pub use wire::MOST_KEPT;
