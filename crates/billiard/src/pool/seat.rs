//! What a worker and its parent share: one segment with a status page, two rings and room for large results, and a notebook for
//! last words; and, for the whole pool, one control page, two doorbells and room for large arguments.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::scheduler::{TaskKey, WorkerId};
use super::{ring, wake};
use crate::arena::{Area, Mapping, descriptor};
use crate::sys::{EventFd, Moment, Notebook, memfd};

const LAYOUT: u32 = 2;
const MAGIC: u32 = 0xb111_a4d5;

const AT_MAGIC: usize = 0;
const AT_LAYOUT: usize = 4;
const AT_GENERATION: usize = 8;
/// The worker sleeps, or is about to.
const AT_ASLEEP: usize = 64;
const AT_COMMAND: usize = 128;
/// The task that the worker has claimed, or zero.
const AT_CURRENT: usize = 192;
const AT_SINCE: usize = 200;
/// The task that a soft limit is meant for.
const AT_INTERRUPT: usize = 256;
const RING_BYTES: usize = 64 * 1024;
const TASKS: ring::Place = ring::Place { control: 4096, data: 8192, capacity: RING_BYTES };
const RESULTS: ring::Place =
    ring::Place { control: 4096 + 512, data: 8192 + RING_BYTES, capacity: RING_BYTES };
const CONTROL: usize = 8192 + 2 * RING_BYTES;

/// What the parent wants of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Go on.
    Work,
    /// Leave when there is nothing left to claim.
    Leave,
}

/// What a sleeping worker waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Asleep {
    /// A task, or the command to leave.
    Idle = 1,
    /// Room in its result ring.
    Room = 2,
}

/// A worker's place: everything that it shares with its parent. Made by the parent before the fork.
#[derive(Debug)]
pub struct Seat {
    id: WorkerId,
    fd: Arc<OwnedFd>,
    map: Arc<Mapping>,
    notebook: Notebook,
    /// Rung when the worker sleeps and there is something for it.
    pub(super) bell: EventFd,
    /// Room for large results; the worker allocates.
    pub(super) area: Arc<Area>,
}

impl Seat {
    pub(super) fn new(id: WorkerId) -> io::Result<Self> {
        let (fd, span) = descriptor(CONTROL as u64)?;
        let map = Arc::new(Mapping::new(&fd, 0, CONTROL)?);
        map.word32(AT_MAGIC).store(MAGIC, Relaxed);
        map.word32(AT_LAYOUT).store(LAYOUT, Relaxed);
        map.word64(AT_GENERATION).store(u64::from(id.generation), Relaxed);
        let area = Arc::new(Area::new(Arc::clone(&fd), CONTROL as u64, span));
        Ok(Self { id, fd, map, notebook: Notebook::new()?, bell: EventFd::new()?, area })
    }

    /// The seat that another process has made, in the worker that is to take it: from [`Seat::shared`], in the same order.
    pub fn received(id: WorkerId, [fd, notebook, bell]: [OwnedFd; 3]) -> io::Result<Self> {
        let (fd, span) = received(fd, CONTROL)?;
        let map = Arc::new(Mapping::new(&fd, 0, CONTROL)?);
        let area = Arc::new(Area::new(Arc::clone(&fd), CONTROL as u64, span));
        let (notebook, bell) = (Notebook::received(notebook), EventFd::received(bell));
        Ok(Self { id, fd, map, notebook, bell, area })
    }

    /// What a worker needs that is not a copy of this process.
    #[must_use]
    pub fn shared(&self) -> [BorrowedFd<'_>; 3] {
        [self.fd.as_fd(), self.notebook.as_fd(), self.bell.as_fd()]
    }

    /// Whose seat it is.
    #[must_use]
    pub const fn id(&self) -> WorkerId {
        self.id
    }

    pub(super) fn is_sound(&self) -> bool {
        self.map.word32(AT_MAGIC).load(Relaxed) == MAGIC
            && self.map.word32(AT_LAYOUT).load(Relaxed) == LAYOUT
            && self.map.word64(AT_GENERATION).load(Relaxed) == u64::from(self.id.generation)
    }

    pub(super) fn task_producer(&self) -> ring::Producer {
        ring::Producer::new(Arc::clone(&self.map), TASKS)
    }

    pub(super) fn task_consumer(&self) -> ring::Consumer {
        ring::Consumer::new(Arc::clone(&self.map), TASKS)
    }

    pub(super) fn result_producer(&self) -> ring::Producer {
        ring::Producer::new(Arc::clone(&self.map), RESULTS)
    }

    pub(super) fn result_consumer(&self) -> ring::Consumer {
        ring::Consumer::new(Arc::clone(&self.map), RESULTS)
    }

    /// Wakes the worker if it sleeps for this reason. Called after what it waits for was put where it looks.
    pub(super) fn wake(&self, reason: Asleep) {
        if wake::must_wake(self.map.word32(AT_ASLEEP), reason as u32) {
            self.bell.ring();
        }
    }

    /// The worker announces that it will sleep; it must look once more for what it waits for before it does.
    pub(super) fn doze(&self, reason: Asleep) {
        wake::doze(self.map.word32(AT_ASLEEP), reason as u32);
    }

    /// The worker is awake.
    pub(super) fn rise(&self) {
        wake::rise(self.map.word32(AT_ASLEEP));
    }

    pub(super) fn command(&self, command: Command) {
        self.map.word32(AT_COMMAND).store(u32::from(command == Command::Leave), Release);
        self.wake(Asleep::Idle);
    }

    pub(super) fn commanded(&self) -> Command {
        if self.map.word32(AT_COMMAND).load(Acquire) == 0 { Command::Work } else { Command::Leave }
    }

    /// The worker begins a task that it has claimed.
    pub(super) fn begin(&self, key: u64, now: Moment) {
        // SYNC(seat.current): whoever sees this start does not see the key of the task before any more.
        self.map.word64(AT_SINCE).store(now.0, Release);
        // SYNC(seat.current): whoever sees the key sees its start too.
        self.map.word64(AT_CURRENT).store(key, Release);
    }

    /// The worker has published the result of its task.
    pub(super) fn end(&self) {
        self.map.word64(AT_CURRENT).store(0, Release);
    }

    /// What the worker runs, and since when.
    pub(super) fn running(&self) -> Option<(TaskKey, Moment)> {
        let current = self.map.word64(AT_CURRENT);
        loop {
            // SYNC(seat.current): pairs with the store in `begin`.
            let key = current.load(Acquire);
            if key == 0 {
                return None;
            }
            let since = self.map.word64(AT_SINCE).load(Acquire);
            // A start that belongs to the next task is never taken for this one's.
            if current.load(Acquire) == key {
                return Some((TaskKey::from_bits(key), Moment(since)));
            }
        }
    }

    /// Names the task that the following soft-limit signal is for.
    pub(super) fn aim(&self, key: TaskKey) {
        self.map.word64(AT_INTERRUPT).store(key.to_bits(), SeqCst);
    }

    /// The last task that a soft limit was meant for, as bits; zero if there was none.
    #[must_use]
    pub fn aimed(&self) -> u64 {
        self.map.word64(AT_INTERRUPT).load(SeqCst)
    }

    /// Where the worker writes what it was doing when it ended.
    #[must_use]
    pub const fn notebook(&self) -> &Notebook {
        &self.notebook
    }

    /// Descriptors that only this seat's worker may keep.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        self.shared().map(|fd| fd.as_raw_fd()).into()
    }
}

/// A segment that somebody else has made, and how long the area behind its head is.
fn received(fd: OwnedFd, head: usize) -> io::Result<(Arc<OwnedFd>, u64)> {
    let span = memfd::length(&fd)?.checked_sub(head as u64).filter(|span| *span > 0);
    span.map(|span| (Arc::new(fd), span)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

const AT_WAITER: usize = 0;
const HUB_HEAD: usize = 4096;

/// Who in the parent is asleep, waiting for results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Waiter {
    /// Nobody sleeps: results will be looked at soon.
    Awake = 0,
    /// The background thread.
    Background = 1,
    /// A thread of the program.
    Leader = 2,
}

/// What all workers of a pool share with the parent.
#[derive(Debug)]
pub struct Hub {
    fd: Arc<OwnedFd>,
    map: Mapping,
    /// Rung for the background thread.
    pub(super) background: EventFd,
    /// Rung for the thread that leads.
    pub(super) leader: EventFd,
    /// Room for large arguments; the parent allocates.
    pub(super) area: Arc<Area>,
}

impl Hub {
    pub(super) fn new() -> io::Result<Self> {
        let (fd, span) = descriptor(HUB_HEAD as u64)?;
        let map = Mapping::new(&fd, 0, HUB_HEAD)?;
        let area = Arc::new(Area::new(Arc::clone(&fd), HUB_HEAD as u64, span));
        // FORK: a worker that is forked while another thread maps the area would wait for that thread for ever.
        area.prepare()?;
        Ok(Self { fd, map, background: EventFd::new()?, leader: EventFd::new()?, area })
    }

    /// The hub that another process has made, in a worker: from [`Hub::shared`], in the same order.
    pub fn received([fd, background, leader]: [OwnedFd; 3]) -> io::Result<Self> {
        let (fd, span) = received(fd, HUB_HEAD)?;
        let map = Mapping::new(&fd, 0, HUB_HEAD)?;
        let area = Arc::new(Area::new(Arc::clone(&fd), HUB_HEAD as u64, span));
        area.prepare()?;
        let (background, leader) = (EventFd::received(background), EventFd::received(leader));
        Ok(Self { fd, map, background, leader, area })
    }

    /// What a worker needs that is not a copy of this process.
    #[must_use]
    pub fn shared(&self) -> [BorrowedFd<'_>; 3] {
        [self.fd.as_fd(), self.background.as_fd(), self.leader.as_fd()]
    }

    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        self.shared().map(|fd| fd.as_raw_fd()).into()
    }

    /// The parent says who must be woken; results must be looked at once more afterwards. Called under the engine's lock.
    pub(super) fn set_waiter(&self, waiter: Waiter) {
        wake::set_waiter(self.map.word64(AT_WAITER), waiter as u64);
    }

    /// A worker has published something: wakes whoever sleeps in the parent. `rung` is the worker's memory of the sleep that
    /// it has last ended.
    pub(super) fn announce(&self, rung: &mut u64) {
        match wake::must_ring(self.map.word64(AT_WAITER), rung) {
            Some(who) if who == Waiter::Background as u64 => self.background.ring(),
            Some(_) => self.leader.ring(),
            None => {}
        }
    }
}
