//! The worker's side: takes tasks, hands in results, sleeps when there is nothing to do.
//!
//! The runtime knows nothing of what a task means. Its owner (a Rust program, or the Python binding) drives it: ask for
//! the [`next`](Runtime::next) order, run it, [`publish`](Runtime::publish) the result.

use std::io;
use std::sync::Arc;

use super::ring::{self, Head};
use super::scheduler::TaskKey;
use super::seat::{Asleep, Command, Hub, Seat};
use crate::arena::{Allocator, Extent, Lease};
use crate::failpoint;
use crate::sys::Interrupts;
use crate::sys::poll::{Woken, readable};
use crate::sys::spin::Spin;
use crate::sys::{Deadline, Moment, now};

pub(super) const TASK: u32 = 1;
pub(super) const TASK_SHARED: u32 = 2;
pub(super) const DEFINE: u32 = 3;
pub(super) const RESULT: u32 = 10;
pub(super) const UP: u32 = 11;
pub(super) const ACCEPTED: u32 = 12;
/// Set in a task's `extra`: the parent wants to know when it is begun.
pub(super) const TELL: u64 = 1;
/// Bits of a result's `aux`.
pub(super) const IS_ERROR: u32 = 1;
pub(super) const IS_SHARED: u32 = 2;
pub(super) const IS_LAST: u32 = 4;

/// Messages up to this size travel in the ring, larger ones in an extent.
pub const INLINE_MOST: usize = 8 * 1024;

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The parent, or somebody with its rights, has overwritten the shared segment.
    #[error("the segment shared with the parent is corrupt")]
    Corrupt,
    /// The kernel refused something.
    #[error("cannot {doing}")]
    Os {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What the worker is to do next.
#[derive(Debug)]
pub enum Order {
    /// Run a task. Its bytes are in the caller's buffer, or in the lease if it is large.
    Task {
        /// Which task.
        key: TaskKey,
        /// The number of the function, as an earlier [`Order::Define`] gave it; 0: the function is in the message.
        function: u32,
        /// The message, if it is in shared memory.
        shared: Option<Arc<Lease>>,
    },
    /// Remember a function under a number. Its description is in the caller's buffer.
    Define(u32),
    /// Leave.
    Leave,
}

/// A large result, written where the parent can read it in place.
#[derive(Debug)]
pub struct Placed(Extent);

/// The worker's end of its seat.
#[derive(Debug)]
pub struct Runtime {
    seat: Arc<Seat>,
    hub: Arc<Hub>,
    tasks: ring::Consumer,
    results: ring::Producer,
    rooms: Option<Allocator>,
    spin: Spin,
    since: Moment,
    /// The parent's sleep that we have last ended.
    rung: u64,
}

impl Runtime {
    /// Takes the seat. Call it once, in the worker's process. That the process does not outlive the pool's is the caller's
    /// business: see [`Parent::watch`](crate::process::Parent::watch).
    pub fn new(seat: Arc<Seat>, hub: Arc<Hub>, spin: bool) -> Result<Self, WorkerError> {
        if !seat.is_sound() {
            return Err(WorkerError::Corrupt);
        }
        Ok(Self {
            tasks: seat.task_consumer(),
            results: seat.result_producer(),
            rooms: None,
            spin: Spin::new(spin),
            since: now(),
            rung: 0,
            seat,
            hub,
        })
    }

    /// Tells the parent that the worker is ready for tasks.
    pub fn up(&mut self) {
        // The ring is empty at this point, so there is room.
        let _ = self.results.push(Head { kind: UP, ..Head::default() }, &[]);
        self.hub.announce(&mut self.rung);
    }

    /// Claims what comes next. `None`: nothing there now; [`spin`](Runtime::spin) or [`sleep`](Runtime::sleep).
    pub fn next(&mut self, into: &mut Vec<u8>) -> Result<Option<Order>, WorkerError> {
        into.clear();
        let mut since = Moment(0);
        let seat = &self.seat;
        let claimed = self.tasks.claim(into, |head| {
            if matches!(head.kind, TASK | TASK_SHARED) {
                failpoint::pass("claimed");
                since = now();
                seat.begin(head.key, since);
                failpoint::pass("begun");
            }
        });
        let Some(head) = claimed.map_err(|ring::Corrupt| WorkerError::Corrupt)? else {
            return Ok((self.seat.commanded() == Command::Leave).then_some(Order::Leave));
        };
        failpoint::pass("freed");
        self.since = since;
        let shared = match head.kind {
            DEFINE => return Ok(Some(Order::Define(head.aux))),
            TASK_SHARED => {
                let extent = decode_extent(into).ok_or(WorkerError::Corrupt)?;
                let lease = self.hub.area.lease(extent);
                let lease =
                    lease.map_err(|source| WorkerError::Os { doing: "map shared arguments", source })?;
                Some(Arc::new(lease.ok_or(WorkerError::Corrupt)?))
            }
            TASK => None,
            _ => return Err(WorkerError::Corrupt),
        };
        if head.extra & TELL != 0 {
            self.put(Head { kind: ACCEPTED, key: head.key, aux: 0, extra: since.0 }, &[])?;
        }
        Ok(Some(Order::Task { key: TaskKey::from_bits(head.key), function: head.aux, shared }))
    }

    /// Waits busily for a moment, as long as that has paid lately. Whether there is something now.
    pub fn spin(&mut self) -> bool {
        let (tasks, seat) = (&mut self.tasks, &self.seat);
        self.spin.until(|| !tasks.is_empty() || seat.commanded() == Command::Leave)
    }

    /// Sleeps until there may be something to do. `interrupts` end the wait too.
    ///
    /// # Blocking
    /// Until the parent hands over a task or says to leave, or a signal handler runs; or it is time to look after the memory of large
    /// results, which the next sleep does.
    pub fn sleep(&mut self, interrupts: Option<Interrupts<'_>>) -> Result<Woken, WorkerError> {
        self.seat.doze(Asleep::Idle);
        failpoint::pass("dozing");
        if !self.tasks.is_empty() || self.seat.commanded() == Command::Leave {
            self.seat.rise();
            return Ok(Woken::Ready);
        }
        let slept = now();
        // What cannot be given back to the system now is used again, or goes back later.
        let tended = self.rooms.as_mut().and_then(|rooms| rooms.tend().unwrap_or(None));
        let woken = self.wait_for_bell(tended.map_or(Deadline::Never, Deadline::At), interrupts)?;
        if woken == Woken::Ready {
            self.spin.slept(now().since(slept));
        }
        Ok(woken)
    }

    fn wait_for_bell(
        &self,
        deadline: Deadline,
        interrupts: Option<Interrupts<'_>>,
    ) -> Result<Woken, WorkerError> {
        use std::os::fd::AsFd;
        let woken = readable(&[self.seat.bell.as_fd()], deadline, interrupts);
        self.seat.rise();
        self.seat.bell.clear();
        woken.map_err(|source| WorkerError::Os { doing: "wait for work", source })
    }

    /// Since when the current task runs.
    #[must_use]
    pub const fn since(&self) -> Moment {
        self.since
    }

    /// Finds room for a large result. `None`: there is none.
    pub fn place(&mut self, len: usize) -> Result<Option<Placed>, WorkerError> {
        let rooms = self.rooms.get_or_insert_with(|| Allocator::new(Arc::clone(&self.seat.area)));
        let extent = rooms.allocate(len as u64);
        let extent =
            extent.map_err(|source| WorkerError::Os { doing: "find room for a large result", source })?;
        Ok(extent.map(Placed))
    }

    /// Writes into a large result.
    pub fn fill(&mut self, placed: &Placed, at: usize, bytes: &[u8]) {
        let rooms = self.rooms.as_ref().expect("whoever placed something has the allocator");
        rooms.fill(&placed.0, at as u64, bytes);
    }

    /// Where a range of a large result lies, to be written by a copy from foreign memory.
    #[must_use]
    pub fn pointer(&self, placed: &Placed, at: usize, len: usize) -> *mut u8 {
        let rooms = self.rooms.as_ref().expect("whoever placed something has the allocator");
        rooms.pointer(&placed.0, at, len)
    }

    /// Hands in the result of a task. `last`: the worker claims nothing after this.
    ///
    /// # Blocking
    /// While the result ring is full, which lasts until the parent has looked at it.
    pub fn publish(
        &mut self,
        key: TaskKey,
        error: bool,
        last: bool,
        bytes: &[u8],
    ) -> Result<(), WorkerError> {
        self.publish_record(key, error, last, 0, bytes)
    }

    /// Hands in a large result.
    ///
    /// # Blocking
    /// As [`Runtime::publish`].
    pub fn publish_placed(
        &mut self,
        key: TaskKey,
        error: bool,
        last: bool,
        placed: Placed,
    ) -> Result<(), WorkerError> {
        self.publish_record(key, error, last, IS_SHARED, &encode_extent(placed.0))
    }

    fn publish_record(
        &mut self,
        key: TaskKey,
        error: bool,
        last: bool,
        bits: u32,
        bytes: &[u8],
    ) -> Result<(), WorkerError> {
        let aux = bits | if error { IS_ERROR } else { 0 } | if last { IS_LAST } else { 0 };
        let ran = now().since(self.since).as_nanos();
        let extra = u64::try_from(ran).unwrap_or(u64::MAX);
        failpoint::pass("ran");
        self.put(Head { kind: RESULT, key: key.to_bits(), aux, extra }, &[bytes])?;
        failpoint::pass("announced");
        self.seat.end();
        failpoint::pass("ended");
        Ok(())
    }

    fn put(&mut self, head: Head, parts: &[&[u8]]) -> Result<(), WorkerError> {
        while self.results.push(head, parts).is_none() {
            self.hub.announce(&mut self.rung);
            self.seat.doze(Asleep::Room);
            if self.results.push(head, parts).is_some() {
                self.seat.rise();
                break;
            }
            // A handler that runs now must not tear the message: it is run after the result is out.
            self.wait_for_bell(Deadline::Never, None)?;
        }
        failpoint::pass("published");
        self.hub.announce(&mut self.rung);
        Ok(())
    }
}

pub(super) fn encode_extent(extent: Extent) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&u64::from(extent.slot).to_ne_bytes());
    bytes[8..16].copy_from_slice(&extent.offset.to_ne_bytes());
    bytes[16..].copy_from_slice(&extent.len.to_ne_bytes());
    bytes
}

pub(super) fn decode_extent(bytes: &[u8]) -> Option<Extent> {
    let word = |at: usize| bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
    let slot = u32::try_from(word(0)?).ok()?;
    Some(Extent { slot, offset: word(8)?, len: word(16)? })
}
