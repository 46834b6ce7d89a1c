//! How a thread that sleeps on a word of memory learns that a signal has come which somebody wants to handle.
//!
//! A futex cannot open a signal mask as it falls asleep, so a handler that runs just before goes unnoticed, and a descriptor
//! cannot be waited for beside a word. But a word can: the C handler of the interpreter writes the signal's number to a
//! descriptor, and if that is a file in memory, mapped here, the write changes a word. Whoever sleeps while that word is
//! zero as well (`futex_waitv`) does not fall asleep once a handler has run; and a handler that runs in the thread that
//! sleeps ends the sleep by itself.

use std::cell::RefCell;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, SeqCst};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{OFlags, SeekFrom, fcntl_getfl, fcntl_setfl, seek};

use super::clock::Moment;
use super::descriptor::lend;
use super::ident::{Identity, me};
use super::memfd;

const LEN: usize = 4096;

/// A file in memory that signal handlers write to. Its first word is zero until one has.
#[derive(Debug)]
pub struct SignalPage {
    fd: ManuallyDrop<OwnedFd>,
    map: MmapRaw,
    owner: Identity,
}

impl Drop for SignalPage {
    fn drop(&mut self) {
        // FORK: a copy may have closed what it inherited and opened something else under this number.
        if self.owner.is_me() {
            // SAFETY: dropped here and nowhere else, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

impl SignalPage {
    /// A new page; nobody has written to it.
    pub fn new() -> io::Result<Self> {
        // Not sealed: a write that is refused would be reported to the program by its interpreter.
        let fd = memfd::growing(LEN as u64)?;
        // What the interpreter asks of the descriptors that it has its handlers write to.
        fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
        let map = MmapOptions::new().len(LEN).map_raw(fd.as_raw_fd())?;
        Ok(Self { fd: ManuallyDrop::new(fd), map, owner: me() })
    }

    /// Whether the calling process has made it. A forked copy would wake the other process, and be woken by it.
    #[must_use]
    pub fn is_mine(&self) -> bool {
        self.owner.is_me()
    }

    /// Where the handler writes.
    #[must_use]
    pub fn writer(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Not zero once a handler has written.
    pub(super) fn word(&self) -> &AtomicU32 {
        // SAFETY: the start of a mapping that lives as long as `self`, aligned, and long enough; the kernel writes to it, and
        // everybody else does so through atomics only.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().cast()) }
    }

    /// Takes out what the handlers have written, and passes it on to the descriptor that would have got it. Signals that
    /// come meanwhile may go unnoticed: look for them afterwards.
    pub fn drain(&self, to: Option<RawFd>) {
        if self.word().load(Acquire) == 0 {
            return;
        }
        // Neither can fail for a file in memory; if it does, the next one to sleep is told of a signal that it knows.
        let written = seek(&*self.fd, SeekFrom::Current(0)).unwrap_or(0);
        let mut bytes = [0; 64];
        let some = bytes.len().min(usize::try_from(written).unwrap_or(0));
        let count = rustix::io::pread(&*self.fd, &mut bytes[..some], 0).unwrap_or(0);
        let _ = seek(&*self.fd, SeekFrom::Start(0));
        self.word().store(0, SeqCst);
        if let Some(to) = to.and_then(|to| lend(to).ok()) {
            // As when a handler writes there: what finds no room is lost, and somebody is awake anyway.
            let _ = rustix::io::write(to, &bytes[..count]);
        }
    }
}

/// What ends the sleep of a thread besides what it waits for.
#[derive(Debug)]
pub enum Alarm {
    /// A handler has written to this page.
    Page(Arc<SignalPage>),
    /// Nobody tells: the thread has to look for signals at this moment.
    Look(Moment),
}

thread_local! {
    static CURRENT: RefCell<Option<Alarm>> = const { RefCell::new(None) };
}

impl Alarm {
    /// Calls `body`, in which no sleep of this thread outlasts the alarm.
    pub fn over<T>(self, body: impl FnOnce() -> T) -> T {
        Self::instead(Some(self), body)
    }

    /// Calls `body`, in which an alarm that is set does not end a sleep: for what has to be finished first.
    pub(crate) fn ignored<T>(body: impl FnOnce() -> T) -> T {
        Self::instead(None, body)
    }

    fn instead<T>(alarm: Option<Self>, body: impl FnOnce() -> T) -> T {
        struct Back(Option<Alarm>);
        impl Drop for Back {
            fn drop(&mut self) {
                CURRENT.set(self.0.take());
            }
        }
        let _back = Back(CURRENT.replace(alarm));
        body()
    }
}

/// The alarm that is set for the calling thread.
pub(super) fn with_current<T>(body: impl FnOnce(Option<&Alarm>) -> T) -> T {
    CURRENT.with_borrow(|alarm| body(alarm.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::poll::Woken;
    use crate::sys::{Deadline, futex, now};

    fn soon() -> Deadline {
        Deadline::At(now().after(Duration::from_secs(20)))
    }

    #[test]
    fn what_a_handler_has_written_before_the_sleep_ends_it() {
        let page = Arc::new(SignalPage::new().unwrap());
        let word = AtomicU32::new(0);
        rustix::io::write(&*page.fd, &[10]).unwrap();
        let woken = Alarm::Page(Arc::clone(&page)).over(|| futex::wait(&word, 0, soon()));
        assert_eq!(woken.unwrap(), Woken::Interrupted);
        page.drain(None);
        let at = Deadline::At(now().after(Duration::from_millis(5)));
        let woken = Alarm::Page(Arc::clone(&page)).over(|| futex::wait(&word, 0, at));
        assert_eq!(woken.unwrap(), Woken::TimedOut);
        rustix::io::write(&*page.fd, &[12]).unwrap();
        assert_eq!(page.word().load(Acquire).to_le_bytes()[0], 12, "written to the start again");
    }

    #[test]
    fn what_was_written_goes_on_to_who_would_have_got_it() {
        let page = SignalPage::new().unwrap();
        let (read, write) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&*page.fd, &[10, 12]).unwrap();
        page.drain(Some(write.as_raw_fd()));
        let mut bytes = [0; 4];
        assert_eq!(rustix::io::read(read, &mut bytes).unwrap(), 2);
        assert_eq!(bytes[..2], [10, 12]);
    }

    #[test]
    fn where_nobody_tells_the_sleep_ends_for_a_look() {
        let word = AtomicU32::new(0);
        let at = now().after(Duration::from_millis(5));
        let woken = Alarm::Look(at).over(|| futex::wait(&word, 0, soon()));
        assert_eq!(woken.unwrap(), Woken::Interrupted);
        assert!(now() >= at);
        let woken = Alarm::Look(at).over(|| futex::wait(&word, 0, Deadline::At(at)));
        assert_eq!(woken.unwrap(), Woken::TimedOut, "the deadline has passed as well");
        assert!(with_current(|alarm| alarm.is_none()));
    }
}
