//! Who works here.

use std::collections::VecDeque;
use std::time::Duration;

use super::tasks::TaskKey;
use crate::sys::Moment;

/// A worker that cannot take tasks is tried again at least this often while there is something to try with.
const LONGEST_REST: Duration = Duration::from_secs(1);

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
    /// Gets nothing new before this: a deliberate signal may be on its way to it.
    pub(super) paused_until: Option<Moment>,
    /// Its ring refused a task. Cleared when it finishes one, or, if it holds none, by another attempt after a rest.
    pub(super) full: bool,
    /// It did not take what it was given although it seemed idle. Until it finishes a task, it gets one at a time, and only
    /// what nobody else has room for.
    pub(super) suspect: bool,
    /// Gets nothing new before this: the last attempt failed.
    pub(super) rests_until: Option<Moment>,
    /// How long it rested last; each time twice as long, until it finishes a task.
    last_rest: Duration,
    /// The oldest task of its ring, since when it has been seen there unclaimed.
    pub(super) lying: Option<(TaskKey, Moment)>,
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
    /// It is not on its way out.
    pub(super) const fn stays(&self) -> bool {
        matches!(self.state, WorkerState::Starting | WorkerState::Up)
    }

    pub(super) fn accepts(&self) -> bool {
        self.stays() && self.paused_until.is_none() && self.rests_until.is_none() && self.budget != Some(0)
    }

    /// How many tasks may lie at this worker.
    const fn room(&self, read_ahead: usize) -> usize {
        match self.state {
            _ if self.full => 0,
            WorkerState::Up => {
                if self.suspect {
                    1
                } else {
                    read_ahead
                }
            }
            WorkerState::Starting if self.has_process => 1,
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

    /// It has finished a task. A pause goes on: the signal that it is for may have been too late for that task.
    pub(super) const fn prove(&mut self) {
        self.proven = true;
        self.trust();
    }

    /// It is awake.
    pub(super) const fn trust(&mut self) {
        self.suspect = false;
        self.full = false;
        self.rests_until = None;
        self.last_rest = Duration::ZERO;
    }

    /// It gets nothing for a while; longer each time.
    pub(super) fn rest(&mut self, now: Moment, at_least: Duration) {
        self.last_rest = (self.last_rest * 2).clamp(at_least, LONGEST_REST);
        self.rests_until = Some(now.after(self.last_rest));
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
            rests_until: None,
            last_rest: Duration::ZERO,
            lying: None,
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
        let n = self.iter().filter(|w| w.stays()).count();
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

    /// A worker that is up, has nothing and has room; a suspect only if there is no other.
    pub(super) fn idle(&self) -> Option<WorkerId> {
        self.iter()
            .filter(|w| w.state == WorkerState::Up && w.accepts() && w.handed.is_empty() && !w.full)
            .max_by_key(|w| (!w.suspect, w.freshness))
            .map(|w| w.id)
    }

    /// The worker from whose ring an idle one should take: the one with most that may be waiting, except those that were
    /// found to have nothing to give.
    pub(super) fn richest(&self, except: &[WorkerId]) -> Option<WorkerId> {
        self.iter()
            .filter(|w| w.handed.len() >= if w.state == WorkerState::Starting { 1 } else { 2 })
            .filter(|w| !except.contains(&w.id))
            .max_by_key(|w| w.handed.len())
            .map(|w| w.id)
    }
}
