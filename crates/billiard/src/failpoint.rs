//! Places at which a test can have the process killed, as if by `kill -9`, in the middle of what must not be torn.
//!
//! Without the feature `failpoints` there is nothing here. With it, `BILLIARD_FAILPOINT=name:n` kills every process when it
//! passes the place of that name for the `n`-th time, and `BILLIARD_DENY=name` denies it something of the kernel's, as an
//! older one would.

#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) const fn pass(_name: &str) {}

#[cfg(feature = "failpoints")]
pub(crate) fn pass(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static ARMED: LazyLock<Option<(String, u32)>> = LazyLock::new(|| {
        #[expect(clippy::disallowed_methods, reason = "read once, by a test that has no other threads yet")]
        let spec = std::env::var("BILLIARD_FAILPOINT").ok()?;
        let (name, times) = spec.split_once(':')?;
        Some((name.to_owned(), times.parse().ok()?))
    });
    static PASSED: AtomicU32 = AtomicU32::new(0);

    if let Some((armed, times)) = ARMED.as_ref()
        && armed == name
        // Relaxed: each place is passed by one thread of a process.
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *times
    {
        crate::sys::signal::raise(libc::SIGKILL);
    }
}

/// Whether a test denies this process something.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub(crate) const fn is_denied(_what: &str) -> bool {
    false
}

#[cfg(feature = "failpoints")]
pub(crate) fn is_denied(what: &str) -> bool {
    use std::sync::LazyLock;

    static DENIED: LazyLock<Option<String>> = LazyLock::new(|| {
        #[expect(clippy::disallowed_methods, reason = "read once, by a test that has no other threads yet")]
        std::env::var("BILLIARD_DENY").ok()
    });
    DENIED.as_deref() == Some(what)
}
