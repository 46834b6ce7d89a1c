//! A process's handle of a queue. What it does is in the files beside this one: [`putting`](super::putting),
//! [`getting`](super::getting), [`tasks`](super::tasks).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::chain::Chain;
use super::error::{Doing, QueueError};
use super::layout::{
    AT_ALL_DONE, AT_BELL, AT_BITMAP, AT_DUTIES, AT_HEAD, AT_LAYOUT, AT_MAGIC, AT_MESSAGES, AT_MOST,
    AT_MOST_BYTES, AT_PUT, AT_ROOM, AT_SLEEPERS, AT_SPAN, AT_TAIL, BACKED, DATA, LAYOUT, MAGIC, MAPPED,
    MOST_SPAN, SEGMENT,
};
use super::lock::{Locked, here, lock, lock_until, try_lock};
use super::parcel::Process;
use super::store::Store;
use super::watch::{Duty, Watch};
use super::writers::{self, Writers};
use super::{totals, warmth};
use crate::sys::robust::{Block, Here};
use crate::sys::spin::Spin;
use crate::sys::{self, Deadline, EventFd, Moment, PerProcess, cpu, memfd};

/// What does not want to wait for messages or room still waits this long for a lock that somebody happens to have.
const BRIEFLY: Duration = Duration::from_millis(100);

/// What a process has for itself.
#[derive(Debug)]
pub(super) struct Local {
    /// The process to others: its number, and when it began. `None`: that cannot be told.
    pub(super) process: Process,
    /// The experience of those who wait for messages. Whoever finds it in use does not spin: another thread does.
    pub(super) spin: Mutex<Spin>,
    /// Whether the process is known as one that puts.
    pub(super) entered: AtomicBool,
    closed: AtomicBool,
}

/// A queue of messages between processes: any number may put, any number may get, and any of them may be killed at any
/// instant without a loss to the others.
///
/// ```
/// use billiard::queue::{Got, Messages, Put, Queue};
/// use billiard::sys::Deadline;
///
/// let queue = Queue::new(None)?;
/// assert_eq!(queue.put(&[b"hello"], Deadline::Never)?, Put::Done(1));
/// let mut messages = Messages::default();
/// assert_eq!(queue.get(10, &mut messages, Deadline::Never)?, Got::Some(1));
/// assert_eq!(messages.iter().next(), Some(&b"hello"[..]));
/// # Ok::<(), billiard::queue::QueueError>(())
/// ```
///
/// # Fork
/// A forked child uses the handle that it has inherited like any other process.
#[derive(Debug)]
pub struct Queue {
    pub(super) chain: Chain,
    pub(super) bell: EventFd,
    local: PerProcess<Local>,
    /// More than one processor is usable.
    pub(super) spin: bool,
    pub(super) most: u32,
    pub(super) most_bytes: u64,
}

/// No bound in bytes.
pub(super) const ANY_BYTES: u64 = u64::MAX;

type QueueWatch<'a> = Watch<'a, Block, AtomicU32>;

impl Queue {
    /// A new queue.
    ///
    /// `most` is how many messages it holds; `None` for as many as there is memory for.
    ///
    /// # Errors
    /// No memory or descriptor is left, or the kernel does not tell of the death of threads.
    pub fn new(most: Option<u32>) -> Result<Self, QueueError> {
        Self::bounded(most, None)
    }

    /// A new queue with a bound in bytes.
    ///
    /// `most` is how many messages it holds. Nothing more is put while those in it take `most_bytes` or more: each as
    /// many as it has, rounded up to 8, and 8. So all together never take more than that and the last one. `None` for as many as
    /// there is memory for.
    ///
    /// # Errors
    /// As for [`Queue::new`].
    pub fn bounded(most: Option<u32>, most_bytes: Option<u64>) -> Result<Self, QueueError> {
        const MAKING: &str = "make a queue";
        here().doing("have deaths of threads announced")?;
        let span = memfd::most_length().saturating_sub(DATA).min(MOST_SPAN);
        // Whole words of the bitmap.
        let span = span - span % (64 * SEGMENT);
        if span < MAPPED {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge)).doing(MAKING);
        }
        let fd = memfd::create(DATA + span, BACKED).doing(MAKING)?;
        let bell = EventFd::new().doing(MAKING)?;
        let bounds = (most.unwrap_or(u32::MAX), most_bytes.unwrap_or(ANY_BYTES));
        let queue = Self::with(Arc::new(fd), bell, span, bounds).doing(MAKING)?;
        let map = &queue.chain.store.map;
        // Relaxed: nobody else has it yet.
        map.word32(AT_MOST).store(queue.most, Relaxed);
        map.word64(AT_MOST_BYTES).store(queue.most_bytes, Relaxed);
        map.word64(AT_SPAN).store(span, Relaxed);
        map.word64(AT_BITMAP).store(1, Relaxed);
        map.word32(AT_LAYOUT).store(LAYOUT, Relaxed);
        map.word32(AT_MAGIC).store(MAGIC, Release);
        Ok(queue)
    }

    fn with(fd: Arc<OwnedFd>, bell: EventFd, span: u64, (most, most_bytes): (u32, u64)) -> io::Result<Self> {
        let chain = Chain { store: Arc::new(Store::new(fd, span)?) };
        Ok(Self { chain, bell, local: PerProcess::new(), spin: cpu::several(), most, most_bytes })
    }

    /// The queue that another process has made: from [`Queue::shared`], in the same order.
    ///
    /// # Errors
    /// It is no queue of this version, or cannot be mapped.
    pub fn received([fd, bell]: [OwnedFd; 2]) -> Result<Self, QueueError> {
        here().doing("have deaths of threads announced")?;
        let length = memfd::length(&fd).map_err(|_| QueueError::Foreign)?;
        let Some(span) = length.checked_sub(DATA).filter(|span| *span >= MAPPED) else {
            return Err(QueueError::Foreign);
        };
        let mut queue =
            Self::with(Arc::new(fd), EventFd::received(bell), span, (0, 0)).doing("map a queue")?;
        let map = &queue.chain.store.map;
        let sound = map.word32(AT_MAGIC).load(Acquire) == MAGIC
            && map.word32(AT_LAYOUT).load(Relaxed) == LAYOUT
            && map.word64(AT_SPAN).load(Relaxed) == span;
        if !sound {
            return Err(QueueError::Foreign);
        }
        queue.most = map.word32(AT_MOST).load(Relaxed);
        queue.most_bytes = map.word64(AT_MOST_BYTES).load(Relaxed);
        Ok(queue)
    }

    /// What a process needs that is not a copy of this one.
    #[must_use]
    pub fn shared(&self) -> [BorrowedFd<'_>; 2] {
        [self.chain.store.fd.as_fd(), self.bell.as_fd()]
    }

    pub(super) fn block(&self, at: usize) -> &Block {
        self.chain.store.map.block(at)
    }

    fn watch(&self, at: usize, number: usize) -> QueueWatch<'_> {
        Watch {
            bed: self.block(at),
            duty: self.block(AT_DUTIES + number * 128),
            sleepers: self.chain.store.map.word32(AT_SLEEPERS + number * 4),
        }
    }

    pub(super) fn messages(&self) -> QueueWatch<'_> {
        self.watch(AT_MESSAGES, 0)
    }

    pub(super) fn room(&self) -> QueueWatch<'_> {
        self.watch(AT_ROOM, 1)
    }

    pub(super) fn all_done(&self) -> QueueWatch<'_> {
        self.watch(AT_ALL_DONE, 2)
    }

    pub(super) fn local(&self) -> &Local {
        self.local.get(|| Local {
            process: sys::start_time(sys::pid()).map(|start| (sys::pid() as u64, start)),
            spin: Mutex::new(Spin::new(self.spin)),
            entered: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
    }

    /// How many messages it holds at most.
    #[must_use]
    pub const fn most(&self) -> usize {
        self.most as usize
    }

    /// How many messages are in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chain.len() as usize
    }

    /// Whether there is no message in the queue.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chain.len() == 0
    }

    /// Whether no message can be put until one is got.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.chain.len() >= self.most || self.used_bytes().is_some_and(|used| used >= self.most_bytes)
    }

    /// How many bytes the messages in the queue take, if that is counted.
    pub(super) fn used_bytes(&self) -> Option<u64> {
        if self.most_bytes == ANY_BYTES {
            return None;
        }
        let map = &self.chain.store.map;
        // In this order: the head never passes the tail.
        let got = totals::current(map, AT_HEAD);
        Some(totals::current(map, AT_TAIL).wrapping_sub(got))
    }

    pub(super) fn hand_on(
        &self,
        duty: Option<Duty<'_, Block, AtomicU32>>,
        guard: usize,
        more: impl FnOnce() -> bool,
    ) -> io::Result<()> {
        duty.map_or(Ok(()), |duty| duty.pass_on(self.block(guard), self.spin, more))
    }

    /// Gives memory back that was kept for large messages which do not come. If it is not time yet, tells when it will be.
    #[inline]
    pub(super) fn cool(&self) -> Result<Option<Moment>, QueueError> {
        warmth::cool(&self.chain.store, self.local().process).doing("give memory back")
    }

    pub(super) fn locked(&self, at: usize, here: Here, deadline: Deadline) -> io::Result<Locked<'_, Block>> {
        if let Some(held) = try_lock(self.block(at), here, self.spin) {
            return Ok(Locked::Held(held));
        }
        let deadline = if deadline.passed() { Deadline::Never.or_after(BRIEFLY) } else { deadline };
        lock_until(self.block(at), here, self.spin, deadline)
    }

    pub(super) fn has_bell(&self) -> bool {
        // Relaxed: set under the lock of those who put, who look under it. Those who get look again under it.
        self.chain.store.map.word32(AT_BELL).load(Relaxed) != 0
    }

    /// A descriptor that is readable while there is a message in the queue. From the first call on, whoever puts into the
    /// empty queue and whoever empties it makes a system call for it.
    ///
    /// Somebody else may be faster: that it is readable does not promise a message.
    pub fn bell(&self) -> Result<BorrowedFd<'_>, QueueError> {
        if !self.has_bell() {
            let here = here().doing("watch a queue")?;
            let held = lock(self.block(AT_PUT), here, self.spin).doing("watch a queue")?;
            self.chain.store.map.word32(AT_BELL).store(1, Release);
            if !self.is_empty() {
                self.bell.ring();
            }
            drop(held);
        }
        Ok(self.bell.as_fd())
    }

    /// Who is left of those who have put something, besides this process.
    #[must_use]
    pub fn writers(&self) -> Writers {
        writers::left(&self.chain.store.map)
    }

    /// Notes that this process will neither put nor get any more. Nobody is kept from it: whoever offers this to programs asks
    /// [`Queue::is_closed`].
    ///
    /// # Fork
    /// A child that is forked afterwards has an open queue.
    pub fn close(&self) -> Result<(), QueueError> {
        let local = self.local();
        local.closed.store(true, Release);
        // Relaxed: only this process reads it.
        if local.entered.swap(false, Relaxed) {
            let here = here().doing("close a queue")?;
            let _held = lock(self.block(AT_PUT), here, self.spin).doing("close a queue")?;
            writers::leave(&self.chain.store.map);
        }
        Ok(())
    }

    /// Whether this process has closed the queue.
    #[inline]
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.local().closed.load(Acquire)
    }
}
