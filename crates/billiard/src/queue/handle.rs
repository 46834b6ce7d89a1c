//! A process's handle of a queue: putting, getting, and waiting for either.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use super::chain::{Chain, Messages};
use super::error::{Doing, QueueError};
use super::layout::{
    AT_ALL_DONE, AT_BELL, AT_BITMAP, AT_DONE, AT_GET, AT_LAYOUT, AT_MAGIC, AT_MESSAGES, AT_MOST, AT_PUT,
    AT_ROOM, AT_SLEEPERS, AT_SPAN, AT_TASKS, AT_ZEROS, BACKED, DATA, LAYOUT, MAGIC, MAPPED, MOST_SPAN,
    SEGMENT,
};
use super::lock::{Held, Locked, here, lock, lock_until, try_lock};
use super::store::Store;
use super::watch::{Duty, Rest, Watch, publish, rest};
use super::writers::{self, Writers};
use crate::failpoint;
use crate::sys::poll::Woken;
use crate::sys::robust::{Block, Here};
use crate::sys::spin::Spin;
use crate::sys::{Deadline, EventFd, PerProcess, cpu, memfd};

/// What does not want to wait for messages or room still waits this long for a lock that somebody happens to have.
const BRIEFLY: Duration = Duration::from_millis(100);

/// How a `put` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// This many messages are in the queue, in one piece and in order.
    Done(usize),
    /// There was no room before the deadline.
    Full,
    /// A signal handler ran first.
    Interrupted,
}

/// How a `get` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// This many messages were appended to those of the caller.
    Some(usize),
    /// There was none before the deadline.
    Empty,
    /// A signal handler ran first.
    Interrupted,
}

/// What a process has for itself.
#[derive(Debug)]
struct Local {
    /// The experience of those who wait for messages. Whoever finds it in use does not spin: another thread does.
    spin: Mutex<Spin>,
    /// Whether the process is known as one that puts.
    entered: AtomicBool,
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
    chain: Chain,
    bell: EventFd,
    local: PerProcess<Local>,
    /// More than one processor is usable.
    spin: bool,
    most: u32,
}

type QueueWatch<'a> = Watch<'a, Block, AtomicU32>;

impl Queue {
    /// A new queue.
    ///
    /// `most` is how many messages it holds; `None` for as many as there is memory for.
    ///
    /// # Errors
    /// No memory or descriptor is left, or the kernel does not tell of the death of threads.
    pub fn new(most: Option<u32>) -> Result<Self, QueueError> {
        const MAKING: &str = "make a queue";
        here().doing("have deaths of threads announced")?;
        let span = memfd::most_length().saturating_sub(DATA).min(MOST_SPAN);
        // Whole words of the bitmap.
        let span = span - span % (64 * SEGMENT);
        if span < MAPPED {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge)).doing(MAKING);
        }
        let fd = memfd::create(DATA + span, BACKED).doing(MAKING)?;
        let queue = Self::with(Arc::new(fd), EventFd::new().doing(MAKING)?, span, most.unwrap_or(u32::MAX))
            .doing(MAKING)?;
        let map = &queue.chain.store.map;
        // Relaxed: nobody else has it yet.
        map.word32(AT_MOST).store(queue.most, Relaxed);
        map.word64(AT_SPAN).store(span, Relaxed);
        map.word64(AT_BITMAP).store(1, Relaxed);
        map.word32(AT_LAYOUT).store(LAYOUT, Relaxed);
        map.word32(AT_MAGIC).store(MAGIC, Release);
        Ok(queue)
    }

    fn with(fd: Arc<OwnedFd>, bell: EventFd, span: u64, most: u32) -> io::Result<Self> {
        let store = Store::new(fd, span)?;
        Ok(Self { chain: Chain { store }, bell, local: PerProcess::new(), spin: cpu::several(), most })
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
        let mut queue = Self::with(Arc::new(fd), EventFd::received(bell), span, 0).doing("map a queue")?;
        let map = &queue.chain.store.map;
        let sound = map.word32(AT_MAGIC).load(Acquire) == MAGIC
            && map.word32(AT_LAYOUT).load(Relaxed) == LAYOUT
            && map.word64(AT_SPAN).load(Relaxed) == span;
        if !sound {
            return Err(QueueError::Foreign);
        }
        queue.most = map.word32(AT_MOST).load(Relaxed);
        Ok(queue)
    }

    /// What a process needs that is not a copy of this one.
    #[must_use]
    pub fn shared(&self) -> [BorrowedFd<'_>; 2] {
        [self.chain.store.fd.as_fd(), self.bell.as_fd()]
    }

    fn block(&self, at: usize) -> &Block {
        self.chain.store.map.block(at)
    }

    fn watch(&self, at: usize, number: usize) -> QueueWatch<'_> {
        Watch { spot: self.block(at), sleepers: self.chain.store.map.word32(AT_SLEEPERS + number * 4) }
    }

    fn messages(&self) -> QueueWatch<'_> {
        self.watch(AT_MESSAGES, 0)
    }

    fn room(&self) -> QueueWatch<'_> {
        self.watch(AT_ROOM, 1)
    }

    fn all_done(&self) -> QueueWatch<'_> {
        self.watch(AT_ALL_DONE, 2)
    }

    fn local(&self) -> &Local {
        self.local.get(|| Local {
            spin: Mutex::new(Spin::new(self.spin)),
            entered: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        })
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
        self.chain.len() >= self.most
    }

    /// Puts messages that fit without sleeping, as many as there is room for; `None` if that cannot be told without waiting
    /// for a lock.
    #[inline]
    pub fn try_put(&self, messages: &[impl AsRef<[u8]>]) -> Result<Option<usize>, QueueError> {
        let here = here().doing("put")?;
        match try_lock(self.block(AT_PUT), here, self.spin) {
            Some(held) => self.put_under(&held, messages).map(Some),
            None => Ok(None),
        }
    }

    /// Puts messages: as many as there is room for at once, at least one. They are in the queue together or not at all.
    ///
    /// # Errors
    /// There is no memory left; then nothing was put.
    ///
    /// # Blocking
    /// While the queue is full; until the deadline or a signal handler.
    pub fn put(&self, messages: &[impl AsRef<[u8]>], deadline: Deadline) -> Result<Put, QueueError> {
        const PUTTING: &str = "put";
        let here = here().doing(PUTTING)?;
        if messages.is_empty() {
            return Ok(Put::Done(0));
        }
        let mut duty = None;
        loop {
            let outcome = match self.locked(AT_PUT, here, deadline).doing(PUTTING)? {
                Locked::Held(held) => match self.put_under(&held, messages) {
                    Ok(0) => Ok(None),
                    Ok(count) => Ok(Some(Put::Done(count))),
                    Err(error) => Err(error),
                },
                Locked::TimedOut => Ok(Some(Put::Full)),
                Locked::Interrupted => Ok(Some(Put::Interrupted)),
            };
            self.hand_on(duty.take(), AT_GET, || !self.is_full()).doing(PUTTING)?;
            if let Some(put) = outcome? {
                return Ok(put);
            }
            if deadline.passed() {
                return Ok(Put::Full);
            }
            let woken = rest(self.block(AT_GET), self.room(), here, self.spin, deadline, || !self.is_full());
            match woken.doing(PUTTING)? {
                Rest::Up(given) => duty = given,
                Rest::TimedOut => return Ok(Put::Full),
                Rest::Interrupted => return Ok(Put::Interrupted),
            }
        }
    }

    fn hand_on(
        &self,
        duty: Option<Duty<'_, Block, AtomicU32>>,
        guard: usize,
        more: impl FnOnce() -> bool,
    ) -> io::Result<()> {
        duty.map_or(Ok(()), |duty| duty.pass_on(self.block(guard), self.spin, more))
    }

    fn locked(&self, at: usize, here: Here, deadline: Deadline) -> io::Result<Locked<'_, Block>> {
        if let Some(held) = try_lock(self.block(at), here, self.spin) {
            return Ok(Locked::Held(held));
        }
        let deadline = if deadline.passed() { Deadline::Never.or_after(BRIEFLY) } else { deadline };
        lock_until(self.block(at), here, self.spin, deadline)
    }

    #[inline]
    fn put_under(&self, held: &Held<'_, Block>, messages: &[impl AsRef<[u8]>]) -> Result<usize, QueueError> {
        failpoint::pass("queue_put_locked");
        let chain = &self.chain;
        if held.inherited {
            chain.note_death();
        }
        if chain.has_litter() {
            // In this order always: nobody takes the first lock while holding the second.
            held.beside(self.block(AT_GET), self.spin, || chain.sweep()).doing("put")??;
        }
        let local = self.local();
        // Relaxed: only this process reads it.
        if !local.entered.load(Relaxed) {
            writers::enter(&chain.store.map);
            local.entered.store(true, Relaxed);
        }
        let mut mark = chain.tail();
        let filled = chain.len();
        let count = messages.len().min(self.most.saturating_sub(filled) as usize);
        if count == 0 {
            return Ok(0);
        }
        for message in &messages[..count] {
            chain.place(&mut mark, message.as_ref())?;
        }
        failpoint::pass("queue_placed");
        if filled == 0 && self.has_bell() {
            // Before the messages can be seen: a bell that rings for nothing is silenced, one that does not ring is not missed.
            self.bell.ring();
        }
        publish(held, &[self.messages()], 1, || chain.show(mark));
        failpoint::pass("queue_put");
        Ok(count)
    }

    /// Gets up to `most` messages that are there, without sleeping; `None` if that cannot be told without waiting for a lock.
    #[inline]
    pub fn try_get(&self, most: usize, into: &mut Messages) -> Result<Option<usize>, QueueError> {
        if self.is_empty() && !self.has_bell() {
            return Ok(Some(0));
        }
        let here = here().doing("get")?;
        let Some(held) = try_lock(self.block(AT_GET), here, self.spin) else { return Ok(None) };
        let got = self.get_under(&held, most, into)?;
        drop(held);
        self.silence(here).doing("get")?;
        Ok(Some(got))
    }

    /// Gets up to `most` messages, at least one.
    ///
    /// A message leaves the queue with one store, when it has been copied. Whoever is killed before has got nothing, and
    /// another one gets it; whoever is killed afterwards has got it. So a message is never got twice.
    ///
    /// # Blocking
    /// While the queue is empty; until the deadline or a signal handler.
    pub fn get(&self, most: usize, into: &mut Messages, deadline: Deadline) -> Result<Got, QueueError> {
        const GETTING: &str = "get";
        let here = here().doing(GETTING)?;
        let mut duty = None;
        loop {
            let outcome = if self.is_empty() {
                Ok(None)
            } else {
                match self.locked(AT_GET, here, deadline).doing(GETTING)? {
                    Locked::Held(held) => match self.get_under(&held, most, into) {
                        Ok(0) => Ok(None),
                        Ok(count) => Ok(Some(Got::Some(count))),
                        Err(error) => Err(error),
                    },
                    Locked::TimedOut => Ok(Some(Got::Empty)),
                    Locked::Interrupted => Ok(Some(Got::Interrupted)),
                }
            };
            self.hand_on(duty.take(), AT_PUT, || !self.is_empty()).doing(GETTING)?;
            self.silence(here).doing(GETTING)?;
            if let Some(got) = outcome? {
                return Ok(got);
            }
            if deadline.passed() {
                return Ok(Got::Empty);
            }
            if self.spin_for_message() {
                continue;
            }
            let start = crate::sys::now();
            let up =
                rest(self.block(AT_PUT), self.messages(), here, self.spin, deadline, || !self.is_empty());
            match up.doing(GETTING)? {
                Rest::Up(given) => {
                    duty = given;
                    if let Ok(spin) = self.local().spin.try_lock() {
                        spin.slept(crate::sys::now().since(start));
                    }
                }
                Rest::TimedOut => return Ok(Got::Empty),
                Rest::Interrupted => return Ok(Got::Interrupted),
            }
        }
    }

    fn spin_for_message(&self) -> bool {
        self.local().spin.try_lock().is_ok_and(|spin| spin.until(|| !self.is_empty()))
    }

    #[inline]
    fn get_under(
        &self,
        held: &Held<'_, Block>,
        most: usize,
        into: &mut Messages,
    ) -> Result<usize, QueueError> {
        failpoint::pass("queue_get_locked");
        let chain = &self.chain;
        if held.inherited {
            chain.note_death();
        }
        let mut mark = chain.head();
        let count = most.min(chain.len() as usize);
        if count == 0 {
            return Ok(0);
        }
        let (bytes, ends) = (into.bytes.len(), into.ends.len());
        let mut passed = Vec::new();
        for _ in 0..count {
            if let Err(error) = chain.fetch(&mut mark, &mut into.bytes, &mut passed) {
                into.bytes.truncate(bytes);
                into.ends.truncate(ends);
                return Err(error);
            }
            into.ends.push(into.bytes.len());
        }
        failpoint::pass("queue_copied");
        publish(held, &[self.room()], 1, || chain.remove(mark));
        failpoint::pass("queue_got");
        for (first, end) in passed {
            chain.store.give_back(first, end).doing("give memory back")?;
        }
        Ok(count)
    }

    fn has_bell(&self) -> bool {
        // Relaxed: set under the lock of those who put, who look under it. Those who get look again under it.
        self.chain.store.map.word32(AT_BELL).load(Relaxed) != 0
    }

    /// Silences the bell if there is nothing to ring for.
    #[inline]
    fn silence(&self, here: Here) -> io::Result<()> {
        if self.has_bell() && self.is_empty() {
            let held = lock(self.block(AT_PUT), here, self.spin)?;
            // Nothing is put meanwhile.
            if self.is_empty() {
                self.bell.clear();
            }
            drop(held);
        }
        Ok(())
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

    /// How many messages were put whose tasks were not reported as done.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        let done = self.chain.store.map.word32(AT_DONE).load(Acquire);
        self.chain.tail().count.wrapping_sub(done) as usize
    }

    /// Reports one task as done.
    ///
    /// # Errors
    /// All of them are.
    pub fn task_done(&self) -> Result<(), QueueError> {
        const DOING: &str = "report a task as done";
        let held = lock(self.block(AT_TASKS), here().doing(DOING)?, self.spin).doing(DOING)?;
        let map = &self.chain.store.map;
        match self.unfinished() {
            0 => return Err(QueueError::TooManyDone),
            1 => publish(&held, &[self.all_done()], i32::MAX.cast_unsigned(), || {
                map.word32(AT_DONE).fetch_add(1, Release);
                map.word32(AT_ZEROS).fetch_add(1, Release);
            }),
            _ => {
                map.word32(AT_DONE).fetch_add(1, Release);
            }
        }
        failpoint::pass("queue_task_done");
        Ok(())
    }

    /// How often all tasks were done: for [`Queue::wait_done`].
    #[must_use]
    pub fn times_done(&self) -> u32 {
        self.chain.store.map.word32(AT_ZEROS).load(Acquire)
    }

    /// Waits until all tasks are done, or have been since `times_done` was `since`.
    ///
    /// # Blocking
    /// Until then, the deadline, or a signal handler.
    pub fn wait_done(&self, since: u32, deadline: Deadline) -> Result<Woken, QueueError> {
        const WAITING: &str = "wait for tasks to be done";
        let here = here().doing(WAITING)?;
        let is_done = || self.times_done() != since || self.unfinished() == 0;
        let guard = self.block(AT_TASKS);
        loop {
            if is_done() {
                return Ok(Woken::Ready);
            }
            match rest(guard, self.all_done(), here, self.spin, deadline, is_done).doing(WAITING)? {
                Rest::Up(duty) => self.hand_on(duty, AT_TASKS, is_done).doing(WAITING)?,
                Rest::TimedOut => return Ok(Woken::TimedOut),
                Rest::Interrupted => return Ok(Woken::Interrupted),
            }
        }
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
