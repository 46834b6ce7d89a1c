//! Forking, and leaving a forked child.

use std::io;

/// On which side of a fork the caller woke up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// In the new process.
    Child,
    /// In the old one; the number is the child's process id.
    Parent(i32),
}

/// Duplicates the calling process. Only the calling thread exists in the child.
///
/// # Fork
/// The child must not touch a lock, engine or thread handle that it inherited, and leaves with [`exit_now`].
#[expect(clippy::disallowed_methods, reason = "this is the one place that forks")]
pub fn fork() -> io::Result<Forked> {
    // SAFETY: fork itself has no memory-safety preconditions; what a child may do afterwards is the caller's contract above.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Ends the process at once: no destructor, no exit handler, no flush.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` does not return and touches no memory of ours.
    unsafe { libc::_exit(status) }
}
