//! Threads of ours: named, and deaf to signals, which belong to the program's own threads.

use std::io;
use std::thread::JoinHandle;

use super::signal::Blocked;

/// Starts a thread that never receives a signal.
pub fn spawn<F>(name: &str, stack_bytes: usize, body: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    // The new thread inherits the mask of its creator, so there is no instant in which it could be chosen.
    let _deaf = Blocked::new()?;
    std::thread::Builder::new().name(name.to_owned()).stack_size(stack_bytes).spawn(body)
}

/// Whether the calling thread is the first of its process, the one that runs a Python program's signal handlers.
#[must_use]
pub fn is_main() -> bool {
    rustix::thread::gettid() == rustix::process::getpid()
}

/// Lets somebody else have this processor, if anybody wants it.
pub fn give_way() {
    rustix::thread::sched_yield();
}
