//! State that belongs to one process and that its forked children must not inherit.

use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use super::ident::{Identity, me};

/// A value of which every process has its own, made when it is first asked for.
///
/// # Fork
/// A child finds none, whatever its parent was doing with its own at that moment, and makes one. The parent's copy is left
/// as it is: a lock inside may be held for ever.
#[derive(Debug)]
pub(crate) struct PerProcess<T> {
    current: AtomicPtr<(Identity, T)>,
}

impl<T: Send + Sync> PerProcess<T> {
    /// Nobody has one yet.
    pub(crate) const fn new() -> Self {
        Self { current: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// The calling process's own.
    #[inline]
    pub(crate) fn get(&self, make: impl FnOnce() -> T) -> &T {
        let current = self.current.load(Acquire);
        // SAFETY: null, or made by `Box::into_raw` below; it is freed only by `drop`.
        match unsafe { current.as_ref() } {
            Some((owner, value)) if owner.is_me() => value,
            _ => self.replace(current, make()),
        }
    }

    #[cold]
    fn replace(&self, stale: *mut (Identity, T), value: T) -> &T {
        let fresh = Box::into_raw(Box::new((me(), value)));
        let current = match self.current.compare_exchange(stale, fresh, AcqRel, Acquire) {
            Ok(_) => fresh,
            Err(theirs) => {
                // SAFETY: made above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                theirs
            }
        };
        // SAFETY: made by this process, by one thread or the other, and freed only by `drop`.
        unsafe { &(*current).1 }
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let current = *self.current.get_mut();
        // SAFETY: as in `get`.
        let mine = unsafe { current.as_ref() }.is_some_and(|(owner, _)| owner.is_me());
        if mine {
            // SAFETY: made by `Box::into_raw`, and nobody borrows it any more.
            drop(unsafe { Box::from_raw(current) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::sys::{ExitStatus, Forked, PidFd, exit_now, fork};

    #[test]
    fn a_child_has_its_own_even_if_the_parents_is_locked() {
        let own = PerProcess::new();
        let held = own.get(|| Mutex::new(1)).lock().unwrap();
        match fork().unwrap() {
            Forked::Child => exit_now(*own.get(|| Mutex::new(2)).lock().unwrap()),
            Forked::Parent(pid) => {
                let ended = PidFd::open(pid).unwrap().wait().unwrap().unwrap();
                assert_eq!(ended.status, ExitStatus::Code(2));
            }
        }
        assert_eq!(*held, 1);
    }
}
