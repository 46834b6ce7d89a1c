//! What a worker and its parent share: one segment with a status page, two rings and room for large results, and a notebook for
//! last words; and, for the whole pool, one control page, two doorbells and room for large arguments.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

use super::ring;
use super::scheduler::{TaskKey, WorkerId};
use crate::arena::{Area, Mapping, descriptor};
use crate::sys::{EventFd, Moment, Notebook};

const LAYOUT: u32 = 1;
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
        // SYNC(seat.asleep): what was published before this fence is seen by a worker that set the word after we read it;
        // otherwise we see the word and ring.
        fence(SeqCst);
        let asleep = self.map.word32(AT_ASLEEP);
        // Relaxed: the fence orders it; the swap decides.
        if asleep.load(Relaxed) == reason as u32 && asleep.swap(0, SeqCst) != 0 {
            self.bell.ring();
        }
    }

    /// The worker announces that it will sleep; it must look once more for what it waits for before it does.
    pub(super) fn doze(&self, reason: Asleep) {
        self.map.word32(AT_ASLEEP).store(reason as u32, SeqCst);
        // SYNC(seat.asleep): pairs with the fence in `wake`.
        fence(SeqCst);
    }

    /// The worker is awake.
    pub(super) fn rise(&self) {
        self.map.word32(AT_ASLEEP).store(0, SeqCst);
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
        self.map.word64(AT_SINCE).store(now.0, Relaxed);
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
        use std::os::fd::AsFd;
        vec![self.fd.as_raw_fd(), self.bell.as_fd().as_raw_fd(), self.notebook.descriptor()]
    }
}

const AT_WAITER: usize = 0;
const HUB_HEAD: usize = 4096;

/// Who in the parent is asleep, waiting for results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
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
        Ok(Self { fd, map, background: EventFd::new()?, leader: EventFd::new()?, area })
    }

    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        use std::os::fd::AsFd;
        let bell = |bell: &EventFd| bell.as_fd().as_raw_fd();
        vec![self.fd.as_raw_fd(), bell(&self.background), bell(&self.leader)]
    }

    /// The parent says who must be woken; results must be looked at once more afterwards.
    pub(super) fn set_waiter(&self, waiter: Waiter) {
        self.map.word32(AT_WAITER).store(waiter as u32, SeqCst);
        // SYNC(hub.waiter): pairs with the fence in `announce`.
        fence(SeqCst);
    }

    /// A worker has published something: wakes whoever sleeps in the parent.
    pub(super) fn announce(&self) {
        // SYNC(hub.waiter): either the parent sees what was published before this fence, or we see that it sleeps.
        fence(SeqCst);
        let waiter = self.map.word32(AT_WAITER);
        if waiter.load(Relaxed) != Waiter::Awake as u32 {
            match waiter.swap(Waiter::Awake as u32, SeqCst) {
                w if w == Waiter::Background as u32 => self.background.ring(),
                w if w == Waiter::Leader as u32 => self.leader.ring(),
                _ => {}
            }
        }
    }
}
