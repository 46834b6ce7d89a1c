//! The parent's side of every worker's seat: what was put into its ring, and what must be taken back.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::Message;
use super::super::ring::{Consumer, Head, Position, Producer};
use super::super::scheduler::{Channels, TaskKey, WorkerId};
use super::super::seat::{Asleep, Hub, Seat};
use super::super::worker::{DEFINE, INLINE_MOST, TASK, TASK_SHARED, TELL, encode_extent};
use crate::arena::{Allocator, Extent, Lease};
use crate::process::Child;
use crate::sys::Moment;

/// What travels to a worker for one task.
#[derive(Debug)]
pub struct Body {
    /// The number under which the function was registered; 0: the function is in the message.
    pub function: u32,
    /// The parent wants to know when the task is begun.
    pub tell: bool,
    /// The rest.
    pub message: Message,
}

/// One task in a worker's ring.
#[derive(Debug)]
struct Flight {
    key: TaskKey,
    at: Position,
    len: usize,
    function: u32,
    tell: bool,
    /// Where its bytes are, if they are not in the ring. Never read back from there: the worker could have changed it.
    extent: Option<Extent>,
}

#[derive(Debug)]
pub(super) struct Desk {
    pub(super) seat: Arc<Seat>,
    pub(super) child: Arc<Child>,
    /// What the owner calls the worker.
    pub(super) name: Arc<str>,
    /// Nobody is woken by its end.
    pub(super) blind: bool,
    tasks: Producer,
    pub(super) results: Consumer,
    flights: VecDeque<Flight>,
    /// How many tasks it has finished.
    pub(super) finished: u64,
    /// How many were taken back from it.
    pub(super) recalled: u64,
    /// Functions that the worker has been told, by number.
    told: Vec<bool>,
}

impl Desk {
    fn forget(&mut self, key: TaskKey) {
        if self.flights.front().is_some_and(|f| f.key == key) {
            self.flights.pop_front();
        } else {
            self.flights.retain(|f| f.key != key);
        }
    }
}

/// Which descriptors belong to the workers. Locked for an instant only, so that a forked child finds it unlocked.
#[derive(Debug, Default)]
pub(super) struct Roll(Mutex<Vec<(Arc<Seat>, Arc<Child>)>>);

impl Roll {
    fn write(&self) -> MutexGuard<'_, Vec<(Arc<Seat>, Arc<Child>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strike_out(&self, id: WorkerId) {
        let mut roll = self.write();
        if let Some(index) = roll.iter().position(|(seat, _)| seat.id() == id) {
            let struck = roll.swap_remove(index);
            drop(roll);
            drop(struck);
        }
    }

    /// All of them.
    ///
    /// # Fork
    /// For a child; none if another thread of the parent was just writing.
    pub(super) fn descriptors(&self) -> Vec<RawFd> {
        let Ok(roll) = self.0.try_lock() else { return Vec::new() };
        let mut fds = Vec::new();
        for (seat, child) in roll.iter() {
            fds.extend(seat.descriptors());
            fds.extend(child.sentinel().map(|fd| fd.as_raw_fd()));
        }
        fds
    }
}

/// Everybody's desk, by seat.
#[derive(Debug)]
pub(super) struct Desks {
    desks: Vec<Option<Desk>>,
    roll: Arc<Roll>,
    functions: Vec<Arc<[u8]>>,
    hub: Arc<Hub>,
    rooms: Arc<Mutex<Allocator>>,
}

impl Desks {
    pub(super) const fn new(hub: Arc<Hub>, rooms: Arc<Mutex<Allocator>>, roll: Arc<Roll>) -> Self {
        Self { desks: Vec::new(), roll, functions: Vec::new(), hub, rooms }
    }

    /// Registers a function; its number is at least 1.
    pub(super) fn register(&mut self, description: &[u8]) -> u32 {
        self.functions.push(description.into());
        u32::try_from(self.functions.len()).expect("fewer than 2^32 functions fit into memory")
    }

    pub(super) fn open(&mut self, seat: Arc<Seat>, child: Arc<Child>, name: &str, blind: bool) {
        let index = seat.id().seat as usize;
        if self.desks.len() <= index {
            self.desks.resize_with(index + 1, || None);
        }
        self.roll.write().push((Arc::clone(&seat), Arc::clone(&child)));
        let (tasks, results) = (seat.task_producer(), seat.result_consumer());
        self.desks[index] = Some(Desk {
            seat,
            child,
            name: name.into(),
            blind,
            tasks,
            results,
            flights: VecDeque::new(),
            finished: 0,
            recalled: 0,
            told: Vec::new(),
        });
    }

    /// Closes the desk of a worker that is gone, and takes back the memory it held.
    pub(super) fn close(&mut self, id: WorkerId) -> Option<Desk> {
        self.get(id)?;
        self.roll.strike_out(id);
        let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be given back to the system now stays allocated in the area: a loss of memory, not of correctness.
        let _ = rooms.inherit(id.generation);
        self.desks[id.seat as usize].take()
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<&Desk> {
        self.desks.get(id.seat as usize)?.as_ref().filter(|d| d.seat.id() == id)
    }

    pub(super) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Desk> {
        self.desks.get_mut(id.seat as usize)?.as_mut().filter(|d| d.seat.id() == id)
    }

    pub(super) fn at_mut(&mut self, seat: usize) -> Option<&mut Desk> {
        self.desks.get_mut(seat)?.as_mut()
    }

    pub(super) const fn seats(&self) -> usize {
        self.desks.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Desk> {
        self.desks.iter().flatten()
    }

    /// A task has ended at this worker.
    pub(super) fn forget(&mut self, id: WorkerId, key: TaskKey) {
        if let Some(desk) = self.get_mut(id) {
            desk.forget(key);
        }
    }

    /// Turns a message into what stands in the ring: its own bytes, or the name of an extent.
    fn place(&self, message: Message, holder: u32) -> Result<(Message, Option<Extent>), Message> {
        let extent = match message {
            Message::Shared(lease) => match Arc::try_unwrap(lease) {
                Ok(lease) => lease.into_extent(),
                Err(lease) => return Err(Message::Shared(lease)),
            },
            message if message.len() > INLINE_MOST => {
                let mut rooms = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
                match rooms.allocate(message.len() as u64) {
                    Ok(Some(extent)) => {
                        rooms.fill(&extent, 0, message.private().unwrap_or_default());
                        extent
                    }
                    // No room now: it stays with us until there is some.
                    Ok(None) | Err(_) => return Err(message),
                }
            }
            message => return Ok((message, None)),
        };
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).entrust(extent.slot, Some(holder));
        Ok((Message::copy(&encode_extent(extent)), Some(extent)))
    }

    /// The message that a name of an extent stands for, ours again.
    fn unplace(&self, extent: Extent) -> Option<Lease> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner).entrust(extent.slot, None);
        self.hub.area.lease(extent).ok().flatten()
    }
}

impl Channels for Desks {
    type Body = Body;

    fn hand(&mut self, worker: WorkerId, task: TaskKey, body: Body) -> Result<(), Body> {
        let Body { function, tell, message } = body;
        let refuse = |message| Err(Body { function, tell, message });
        let Some(desk) = self.get_mut(worker) else { return refuse(message) };
        let known = function as usize;
        if function > 0 && !desk.told.get(known).copied().unwrap_or(false) {
            let Some(description) = self.functions.get(known - 1).map(Arc::clone) else {
                return refuse(message);
            };
            let Some(desk) = self.get_mut(worker) else { return refuse(message) };
            let head = Head { kind: DEFINE, aux: function, ..Head::default() };
            if desk.tasks.push(head, &[&description]).is_none() {
                return refuse(message);
            }
            if desk.told.len() <= known {
                desk.told.resize(known + 1, false);
            }
            desk.told[known] = true;
        }
        let (message, extent) = match self.place(message, worker.generation) {
            Ok(placed) => placed,
            Err(message) => return refuse(message),
        };
        let Some(desk) = self.get_mut(worker) else { return refuse(message) };
        let head = Head {
            kind: if extent.is_some() { TASK_SHARED } else { TASK },
            key: task.to_bits(),
            aux: function,
            extra: if tell { TELL } else { 0 },
        };
        let bytes = message.private().unwrap_or_default();
        let Some(at) = desk.tasks.push(head, &[bytes]) else {
            let back = extent.and_then(|e| self.unplace(e)).map(|lease| Message::Shared(Arc::new(lease)));
            return refuse(back.unwrap_or(message));
        };
        desk.flights.push_back(Flight { key: task, at, len: bytes.len(), function, tell, extent });
        desk.seat.wake(Asleep::Idle);
        Ok(())
    }

    fn recall(&mut self, worker: WorkerId, task: TaskKey) -> Option<Body> {
        let desk = self.get_mut(worker)?;
        let index = desk.flights.iter().rposition(|f| f.key == task)?;
        let (at, len) = (desk.flights[index].at, desk.flights[index].len);
        let bytes = desk.tasks.recall(at, len)?;
        let flight = desk.flights.remove(index)?;
        desk.recalled += 1;
        let message = match flight.extent {
            None => Message::copy(&bytes),
            Some(extent) => Message::Shared(Arc::new(self.unplace(extent)?)),
        };
        Some(Body { function: flight.function, tell: flight.tell, message })
    }

    fn running(&self, worker: WorkerId) -> Option<(TaskKey, Moment)> {
        self.get(worker)?.seat.running()
    }
}
