//! Who works here.

use std::collections::VecDeque;

use super::tasks::TaskKey;
use crate::sys::Moment;

/// Names a worker for as long as it lives; its successor in the same seat has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId {
    /// Index of the seat; the lowest free one is taken first.
    pub seat: u32,
    /// Counts the workers of the whole pool.
    pub generation: u32,
}

/// How far a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// Asked for, or running its initializer.
    Starting,
    /// Takes tasks.
    Up,
    /// Finishes what it runs, then goes.
    Leaving,
    /// Is being ended.
    Dying,
}

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) state: WorkerState,
    /// The process was started (or is about to be reported gone).
    pub(super) has_process: bool,
    /// What lies in its ring or runs, oldest first.
    pub(super) handed: VecDeque<TaskKey>,
    /// How many tasks it may still be given before it is replaced.
    pub(super) budget: Option<u32>,
    /// It has finished a task: whatever happens to it later, it could work.
    pub(super) proven: bool,
    /// Its end is our wish.
    pub(super) told_to_end: bool,
    /// The task that a deliberate signal was meant for.
    pub(super) condemned: Option<TaskKey>,
    /// Gets nothing new before this.
    pub(super) paused_until: Option<Moment>,
    /// Its ring refused a task; cleared when it finishes one.
    pub(super) full: bool,
    /// It did not take what it was given although it seemed idle.
    pub(super) suspect: bool,
    /// When the oldest task of its ring was handed to it while it was idle.
    pub(super) handed_at: Moment,
    /// Order of last success: of several idle workers the most recent one is still awake and has warm caches.
    pub(super) freshness: u64,
    /// When a limit of its tasks could first be passed.
    pub(super) check_at: Option<Moment>,
    /// The running task whose stack was already asked for.
    pub(super) inspected: Option<TaskKey>,
    /// When patience with a terminating worker ends.
    pub(super) kill_at: Option<Moment>,
}

impl Worker {
    pub(super) fn accepts(&self) -> bool {
        matches!(self.state, WorkerState::Starting | WorkerState::Up)
            && self.paused_until.is_none()
            && self.budget != Some(0)
    }

    /// How many tasks may lie at this worker.
    const fn room(&self, read_ahead: usize) -> usize {
        match self.state {
            WorkerState::Up if !self.full => read_ahead,
            WorkerState::Starting if self.has_process && !self.full => 1,
            _ => 0,
        }
    }

    pub(super) fn forget(&mut self, key: TaskKey) {
        if self.handed.front() == Some(&key) {
            self.handed.pop_front();
        } else {
            self.handed.retain(|k| *k != key);
        }
        self.full = false;
    }

    /// It has finished a task.
    pub(super) const fn prove(&mut self) {
        self.proven = true;
        self.suspect = false;
        self.paused_until = None;
    }
}

#[derive(Debug)]
pub(super) struct Roster {
    seats: Vec<Option<Worker>>,
    generation: u32,
    clock: u64,
}

impl Roster {
    pub(super) const fn new() -> Self {
        Self { seats: Vec::new(), generation: 0, clock: 0 }
    }

    pub(super) fn admit(&mut self, budget: Option<u32>) -> WorkerId {
        self.generation = self.generation.wrapping_add(1);
        let seat = self.seats.iter().position(Option::is_none).unwrap_or_else(|| {
            self.seats.push(None);
            self.seats.len() - 1
        });
        let id = WorkerId {
            seat: u32::try_from(seat).expect("fewer than 2^32 processes exist"),
            generation: self.generation,
        };
        self.seats[seat] = Some(Worker {
            id,
            state: WorkerState::Starting,
            has_process: false,
            handed: VecDeque::new(),
            budget,
            proven: false,
            told_to_end: false,
            condemned: None,
            paused_until: None,
            full: false,
            suspect: false,
            handed_at: Moment(0),
            freshness: 0,
            check_at: None,
            inspected: None,
            kill_at: None,
        });
        id
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.seats.get(id.seat as usize)?.as_ref().filter(|w| w.id == id)
    }

    pub(super) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.seats.get_mut(id.seat as usize)?.as_mut().filter(|w| w.id == id)
    }

    pub(super) fn remove(&mut self, id: WorkerId) -> Option<Worker> {
        self.get(id)?;
        self.seats[id.seat as usize].take()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.seats.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.seats.iter_mut().flatten()
    }

    /// How many seats there are, taken or not.
    #[cfg(test)]
    pub(super) const fn seats(&self) -> usize {
        self.seats.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Workers that are not on their way out.
    pub(super) fn staying(&self) -> u32 {
        let n = self.iter().filter(|w| matches!(w.state, WorkerState::Starting | WorkerState::Up)).count();
        u32::try_from(n).expect("fewer than 2^32 processes exist")
    }

    /// Marks a worker as the most recently successful one.
    pub(super) fn freshen(&mut self, id: WorkerId) {
        self.clock += 1;
        let clock = self.clock;
        if let Some(w) = self.get_mut(id) {
            w.freshness = clock;
        }
    }

    /// The worker that should get the next task: an idle one that is up and was busy last, else the least loaded one with
    /// room.
    pub(super) fn pick(&self, read_ahead: usize) -> Option<WorkerId> {
        self.iter()
            .filter(|w| w.accepts() && w.handed.len() < w.room(read_ahead))
            .min_by_key(|w| {
                let starting = w.state == WorkerState::Starting;
                (w.suspect, w.handed.len() + usize::from(starting), u64::MAX - w.freshness)
            })
            .map(|w| w.id)
    }

    /// A worker that is up and has nothing.
    pub(super) fn idle(&self) -> Option<WorkerId> {
        self.iter()
            .filter(|w| w.state == WorkerState::Up && w.accepts() && w.handed.is_empty() && !w.suspect)
            .max_by_key(|w| w.freshness)
            .map(|w| w.id)
    }

    /// The worker from whose ring an idle one should take: the one with most that is waiting.
    pub(super) fn richest(&self) -> Option<WorkerId> {
        self.iter()
            .filter(|w| w.handed.len() >= if w.state == WorkerState::Starting { 1 } else { 2 })
            .max_by_key(|w| w.handed.len())
            .map(|w| w.id)
    }
}
