//! Signal masks.

use std::io;
use std::mem::MaybeUninit;

/// The signal of Ctrl-C.
pub const SIGINT: i32 = libc::SIGINT;

/// The signal that cannot be refused.
pub const SIGKILL: i32 = libc::SIGKILL;

/// A set of blocked signals, as the calling thread had it.
#[derive(Clone, Copy)]
pub struct Mask(libc::sigset_t);

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mask")
    }
}

impl Mask {
    /// Every signal.
    #[must_use]
    pub fn all() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `set` is valid for writing one sigset_t.
        unsafe { libc::sigfillset(set.as_mut_ptr()) };
        // SAFETY: sigfillset initialised it.
        Self(unsafe { set.assume_init() })
    }

    /// No signal.
    #[must_use]
    pub fn none() -> Self {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `set` is valid for writing one sigset_t.
        unsafe { libc::sigemptyset(set.as_mut_ptr()) };
        // SAFETY: sigemptyset initialised it.
        Self(unsafe { set.assume_init() })
    }

    /// What the calling thread blocks.
    pub fn current() -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: without a new set nothing is changed; the old one is written to valid memory.
        let rc = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), set.as_mut_ptr()) };
        if rc != 0 {
            return Err(io::Error::from_raw_os_error(rc));
        }
        // SAFETY: a successful call filled it.
        Ok(Self(unsafe { set.assume_init() }))
    }

    /// This set and one more signal.
    #[must_use]
    pub fn and(mut self, signal: i32) -> Self {
        // SAFETY: the set is initialised; a number that is no signal leaves it as it is.
        unsafe { libc::sigaddset(&raw mut self.0, signal) };
        self
    }

    /// Blocks exactly this set in the calling thread and answers what was blocked before.
    pub fn apply(&self) -> io::Result<Self> {
        let mut old = MaybeUninit::uninit();
        // SAFETY: both pointers are valid; the new set is initialised.
        let rc = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, old.as_mut_ptr()) };
        if rc != 0 {
            return Err(io::Error::from_raw_os_error(rc));
        }
        // SAFETY: a successful call filled it.
        Ok(Self(unsafe { old.assume_init() }))
    }

    pub(super) const fn as_ptr(&self) -> *const libc::sigset_t {
        &raw const self.0
    }
}

/// Blocks every signal in the calling thread until dropped.
#[derive(Debug)]
pub struct Blocked(Mask);

impl Blocked {
    /// Blocks every signal.
    pub fn new() -> io::Result<Self> {
        Mask::all().apply().map(Self)
    }

    /// What was blocked before.
    #[must_use]
    pub const fn before(&self) -> &Mask {
        &self.0
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // Restoring a mask that the kernel itself gave us cannot fail.
        let _ = self.0.apply();
    }
}

/// Sends `signal` to the calling process.
pub fn raise(signal: i32) {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: kill has no memory effects; a bad number is refused by the kernel.
    unsafe { libc::kill(own, signal) };
}

/// Asks for `signal` when the thread that started this process ends; 0 asks for none.
pub fn set_parent_death(signal: i32) -> io::Result<()> {
    let signal = libc::c_ulong::try_from(signal).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: this operation takes one number and touches no memory.
    let rc = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The signal asked for with [`set_parent_death`]; 0 for none.
pub fn parent_death() -> io::Result<i32> {
    let mut signal: libc::c_int = 0;
    // SAFETY: this operation writes one int through the pointer, which is valid.
    let rc = unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) };
    if rc == 0 { Ok(signal) } else { Err(io::Error::last_os_error()) }
}
