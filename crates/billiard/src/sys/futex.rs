//! Sleeping on words of memory that other processes share.

use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rustix::io::Errno;
use rustix::thread::{ClockId, futex};
use rustix::time::Timespec;

use super::alarm::{self, Alarm};
use super::clock::Deadline;
use super::interrupts::GLANCE;
use super::poll::Woken;
use crate::failpoint;

/// What has ended a sleep on several words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Roused {
    /// Somebody has woken the sleepers of the word with this number.
    By(usize),
    /// One of the words was not as expected.
    Changed,
    /// The deadline has passed.
    TimedOut,
    /// A signal wants to be handled.
    Interrupted,
}

/// KERNEL: `futex_waitv` since 5.16; where it is missing or forbidden, a thread sleeps on one word only.
static WAITS_ON_ONE: AtomicBool = AtomicBool::new(false);

/// Whether a thread can sleep on several words, as far as is known.
pub(crate) fn waits_on_several() -> bool {
    // Relaxed: at worst the kernel is asked once more.
    !WAITS_ON_ONE.load(Ordering::Relaxed) && !failpoint::is_denied("futex_waitv")
}

/// Sleeps while `word` holds `expected`, until it is woken or the deadline passes. Waking is a hint: look at the word again.
///
/// # Blocking
/// Until [`wake`], the deadline, or a signal: a handler that runs in this thread while it sleeps, or whatever the thread's
/// [`Alarm`] tells of.
pub fn wait(word: &AtomicU32, expected: u32, deadline: Deadline) -> io::Result<Woken> {
    Ok(match wait_on(&[(word, expected)], deadline)? {
        Roused::By(_) | Roused::Changed => Woken::Ready,
        Roused::TimedOut => Woken::TimedOut,
        Roused::Interrupted => Woken::Interrupted,
    })
}

/// The same for two words. Where a thread sleeps on one word only, that is the first.
pub(crate) fn wait_on(words: &[(&AtomicU32, u32)], deadline: Deadline) -> io::Result<Roused> {
    alarm::with_current(|alarm| match alarm {
        None => wait_on_all(words, None, deadline),
        Some(Alarm::Page(page)) if waits_on_several() => wait_on_all(words, Some(page.word()), deadline),
        Some(Alarm::Page(_)) => wait_until(words, Deadline::Never.or_after(GLANCE), deadline),
        Some(Alarm::Look(at)) => wait_until(words, Deadline::At(*at), deadline),
    })
}

/// Sleeps while each of two words holds what is expected of it. Where a thread sleeps on one word only, it wakes up often,
/// as if it had been woken.
///
/// # Blocking
/// As for [`wait`].
pub(crate) fn wait_either(
    one: (&AtomicU32, u32),
    other: (&AtomicU32, u32),
    deadline: Deadline,
) -> io::Result<Woken> {
    let until = if waits_on_several() { deadline } else { deadline.or_after(GLANCE) };
    Ok(match wait_on(&[one, other], until)? {
        Roused::TimedOut if deadline.passed() => Woken::TimedOut,
        Roused::Interrupted => Woken::Interrupted,
        Roused::By(_) | Roused::Changed | Roused::TimedOut => Woken::Ready,
    })
}

/// Sleeps until `look`, when the caller has to look for signals.
fn wait_until(words: &[(&AtomicU32, u32)], look: Deadline, deadline: Deadline) -> io::Result<Roused> {
    match wait_on_all(words, None, deadline.sooner(look))? {
        Roused::TimedOut if !deadline.passed() => Ok(Roused::Interrupted),
        other => Ok(other),
    }
}

/// `alarm`: not zero once there is a signal.
fn wait_on_all(
    words: &[(&AtomicU32, u32)],
    alarm: Option<&AtomicU32>,
    deadline: Deadline,
) -> io::Result<Roused> {
    let until = match deadline {
        Deadline::Never => None,
        Deadline::At(at) => Some(Timespec {
            tv_sec: i64::try_from(at.0 / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: (at.0 % 1_000_000_000) as i64,
        }),
    };
    if (words.len() > 1 || alarm.is_some()) && waits_on_several() {
        let mut list = [futex::Wait::new(); 3];
        let mut count = 0;
        for (word, expected) in words.iter().copied().chain(alarm.map(|word| (word, 0))).take(list.len()) {
            list[count].val = u64::from(expected);
            list[count].uaddr = futex::WaitPtr::new(word.as_ptr().cast());
            // Without the private flag, since the words may lie in shared memory.
            list[count].flags = futex::WaitFlags::SIZE_U32;
            count += 1;
        }
        let flags = futex::WaitvFlags::empty();
        return match futex::waitv(&list[..count], flags, until.as_ref(), ClockId::Monotonic) {
            Ok(index) if index < words.len() => Ok(Roused::By(index)),
            // Nobody wakes the sleepers of an alarm; but who has done so all the same has us look.
            Ok(_) | Err(Errno::INTR) => Ok(Roused::Interrupted),
            Err(Errno::AGAIN) if alarm.is_some_and(|word| word.load(Ordering::Acquire) != 0) => {
                Ok(Roused::Interrupted)
            }
            Err(Errno::AGAIN) => Ok(Roused::Changed),
            Err(Errno::TIMEDOUT) => Ok(Roused::TimedOut),
            Err(Errno::NOSYS | Errno::PERM) => {
                WAITS_ON_ONE.store(true, Ordering::Relaxed);
                // As if something had happened: whoever looks again and comes back knows of it.
                Ok(Roused::Changed)
            }
            Err(error) => Err(error.into()),
        };
    }
    let [(word, expected), ..] = words else { return Ok(Roused::Changed) };
    // The bitset form takes an absolute time.
    let any = NonZeroU32::MAX;
    match futex::wait_bitset(word, futex::Flags::empty(), *expected, until.as_ref(), any) {
        Ok(()) => Ok(Roused::By(0)),
        Err(Errno::AGAIN) => Ok(Roused::Changed),
        Err(Errno::TIMEDOUT) => Ok(Roused::TimedOut),
        Err(Errno::INTR) => Ok(Roused::Interrupted),
        Err(error) => Err(error.into()),
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
