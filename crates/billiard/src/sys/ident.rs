//! Which process is this? A cached pid lies after a fork; the generation does not.

use std::sync::atomic::{AtomicU64, Ordering};

static GENERATION: AtomicU64 = AtomicU64::new(1);
/// Counts the forks that have begun and those that are done.
static FORKS: AtomicU64 = AtomicU64::new(0);
static REGISTERED: std::sync::Once = std::sync::Once::new();

/// Who a process is. Equal only within one process: a forked child has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    generation: u64,
}

impl Identity {
    /// Whether the calling process is the one that made this value.
    #[must_use]
    pub fn is_me(self) -> bool {
        // Relaxed: the value only changes in a child that has a single thread.
        GENERATION.load(Ordering::Relaxed) == self.generation
    }
}

extern "C" fn in_child() {
    // FORK: runs in the child before anything else; atomic words are all that is safe and all that is needed.
    GENERATION.fetch_add(1, Ordering::Relaxed);
    super::life::forget();
}

extern "C" fn around_fork() {
    // What another thread makes while the process forks may or may not be in the child, hence once before and once after.
    FORKS.fetch_add(1, Ordering::SeqCst);
}

/// A number that changes whenever this process forks: what was made and is gone under the same number, no child has seen.
///
/// # Fork
/// As for [`me`].
#[must_use]
pub fn forks() -> u64 {
    let _ = me();
    FORKS.load(Ordering::SeqCst)
}

/// The identity of the calling process.
///
/// # Fork
/// The first call must happen before the process forks (the engine and the binding call it when they are made), since it
/// registers the handler that gives children another generation.
#[must_use]
pub fn me() -> Identity {
    REGISTERED.call_once(|| {
        // SAFETY: the handlers are async-signal-safe (a few atomic words) and live as long as the program.
        unsafe { libc::pthread_atfork(Some(around_fork), Some(around_fork), Some(in_child)) };
    });
    Identity { generation: GENERATION.load(Ordering::Relaxed) }
}

/// The process id of this process's parent; `None` if that is outside of what this process can see.
#[must_use]
pub fn parent_pid() -> Option<i32> {
    rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get())
}

/// The process id of this process.
#[must_use]
pub fn pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}
