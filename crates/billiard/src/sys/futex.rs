//! Sleeping on a word of memory that other processes share.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use rustix::thread::futex;
use rustix::time::Timespec;

use super::clock::Deadline;
use super::poll::Woken;
use crate::failpoint;

/// Sleeps while `word` holds `expected`, until it is woken or the deadline passes. Waking is a hint: look at the word again.
///
/// # Blocking
/// Until [`wake`], the deadline, or a signal handler. A handler that runs just before the call does not end it, so a thread
/// that has handlers to run must not sleep here for long.
pub fn wait(word: &AtomicU32, expected: u32, deadline: Deadline) -> io::Result<Woken> {
    let until = until(deadline);
    // Without the private flag, since the word may lie in shared memory. The bitset form takes an absolute time.
    let any = std::num::NonZeroU32::MAX;
    ended(futex::wait_bitset(word, futex::Flags::empty(), expected, until.as_ref(), any))
}

fn until(deadline: Deadline) -> Option<Timespec> {
    match deadline {
        Deadline::Never => None,
        Deadline::At(at) => Some(Timespec {
            tv_sec: i64::try_from(at.0 / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (at.0 % 1_000_000_000) as i64,
        }),
    }
}

fn ended(waited: rustix::io::Result<()>) -> io::Result<Woken> {
    match waited {
        // The word had changed already: as good as woken.
        Ok(()) | Err(rustix::io::Errno::AGAIN) => Ok(Woken::Ready),
        Err(rustix::io::Errno::TIMEDOUT) => Ok(Woken::TimedOut),
        Err(rustix::io::Errno::INTR) => Ok(Woken::Interrupted),
        Err(error) => Err(error.into()),
    }
}

/// Where the kernel lets nobody sleep on two words, whoever wants to looks at the second one this often.
const LOOK: Duration = Duration::from_millis(50);

/// Sleeps while each of two words holds what is expected of it, until either is woken or the deadline passes.
///
/// KERNEL: since 5.16. Before, and where a sandbox forbids it, a sleeper wakes up every 50 ms, as if it had been woken.
///
/// # Blocking
/// As for [`wait`].
pub fn wait_either(
    one: (&AtomicU32, u32),
    other: (&AtomicU32, u32),
    deadline: Deadline,
) -> io::Result<Woken> {
    static MISSING: AtomicBool = AtomicBool::new(false);
    // Relaxed: it only ever becomes true, and at worst is found out again.
    if !MISSING.load(Relaxed) && !failpoint::is_denied("futex_waitv") {
        let both = [one, other].map(|(word, expected)| {
            let mut wait = futex::Wait::new();
            wait.val = u64::from(expected);
            wait.uaddr = futex::WaitPtr::new(word.as_ptr().cast());
            wait.flags = futex::WaitFlags::SIZE_U32;
            wait
        });
        let until = until(deadline);
        let waited =
            futex::waitv(&both, futex::WaitvFlags::empty(), until.as_ref(), rustix::time::ClockId::Monotonic);
        match waited.map(|_| ()) {
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => MISSING.store(true, Relaxed),
            done => return ended(done),
        }
    }
    match wait(one.0, one.1, deadline.or_after(LOOK))? {
        Woken::TimedOut if !deadline.passed() => Ok(Woken::Ready),
        woken => Ok(woken),
    }
}

/// Wakes up to `most` sleepers of `word`, in whatever process; answers how many there were.
pub fn wake(word: &AtomicU32, most: u32) -> io::Result<usize> {
    Ok(futex::wake(word, futex::Flags::empty(), most)?)
}

/// Lets up to `most` sleepers of `word` sleep on at `target` instead, if `word` still holds `expected`; answers how many.
pub fn requeue(word: &AtomicU32, expected: u32, target: &AtomicU32, most: u32) -> io::Result<usize> {
    Ok(futex::cmp_requeue(word, futex::Flags::empty(), 0, most, target, expected)?)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::*;
    use crate::arena::Mapping;
    use crate::sys::{Forked, PidFd, exit_now, fork, memfd, now};

    #[test]
    fn a_changed_word_does_not_sleep_and_an_unchanged_one_times_out() {
        let word = AtomicU32::new(1);
        assert_eq!(wait(&word, 0, Deadline::Never).unwrap(), Woken::Ready);
        let start = now();
        let deadline = Deadline::At(start.after(Duration::from_millis(5)));
        assert_eq!(wait(&word, 1, deadline).unwrap(), Woken::TimedOut);
        assert!(now().since(start) >= Duration::from_millis(5));
    }

    #[test]
    fn a_sleeper_is_woken_from_another_process() {
        let fd = memfd::create(4096, 4096).unwrap();
        let map = Mapping::new(fd.as_fd(), 0, 4096).unwrap();
        match fork().unwrap() {
            Forked::Child => {
                // Until the parent sleeps there is nobody to wake.
                map.word32(0).store(1, Ordering::SeqCst);
                while wake(map.word32(0), 1).is_ok_and(|woken| woken == 0) {}
                exit_now(0)
            }
            Forked::Parent(pid) => {
                let deadline = Deadline::At(now().after(Duration::from_secs(20)));
                while map.word32(0).load(Ordering::SeqCst) == 0 && !deadline.passed() {
                    std::hint::spin_loop();
                }
                assert_eq!(wait(map.word32(0), 1, deadline).unwrap(), Woken::Ready);
                PidFd::open(pid).unwrap().wait().unwrap();
            }
        }
    }
}
