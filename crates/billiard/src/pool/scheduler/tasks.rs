//! The table of tasks that have not ended.

use std::time::Duration;

use super::limits::ahead_of;
use super::roster::WorkerId;

/// Names a task for as long as it lives; a later task in the same row has another key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey(u64);

impl TaskKey {
    const fn new(row: u32, generation: u32) -> Self {
        Self(((generation as u64) << 32) | row as u64)
    }

    const fn row(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    /// As it travels through shared memory; never zero.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// From shared memory; a wrong one simply names no task.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// The time limits of a task, counted from the moment a worker begins it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// After this long the task is interrupted once.
    pub soft: Option<Duration>,
    /// After this long the task fails and its worker is ended.
    pub hard: Option<Duration>,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self { soft: None, hard: None };

    /// After how long something is due: the soft limit, or the look that comes before the hard one.
    pub(super) fn first(&self) -> Option<Duration> {
        match (self.soft, self.hard.map(|limit| limit - ahead_of(limit))) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

/// Where a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Queued,
    At(WorkerId),
}

#[derive(Debug)]
pub(super) struct Task<T, B> {
    pub(super) tag: T,
    /// Present while the task is queued; in the ring otherwise.
    pub(super) body: Option<B>,
    /// Boxed, since most tasks have none and a million of them may be pending.
    pub(super) watch: Option<Box<Watch>>,
    pub(super) place: Place,
}

/// What is watched about a task with limits.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) limits: Limits,
    /// Its soft limit has fired.
    pub(super) interrupted: bool,
}

impl<T, B> Task<T, B> {
    pub(super) fn limits(&self) -> Limits {
        self.watch.as_deref().map_or(Limits::NONE, |watch| watch.limits)
    }
}

/// Above this many rows, the table is given back once it is empty.
const FLOOD: usize = 65_536;

#[derive(Debug)]
enum Row<T, B> {
    Used { generation: u32, task: Task<T, B> },
    Free { generation: u32, next: Option<u32> },
}

#[derive(Debug)]
pub(super) struct Tasks<T, B> {
    rows: Vec<Row<T, B>>,
    free: Option<u32>,
    len: usize,
    /// Generation of rows yet to be made: above that of every row there ever was, and never zero, so that no key repeats.
    birth: u32,
}

impl<T, B> Tasks<T, B> {
    pub(super) const fn new() -> Self {
        Self { rows: Vec::new(), free: None, len: 0, birth: 1 }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// How many rows there are, used or not.
    #[cfg(test)]
    pub(super) const fn capacity(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn insert(&mut self, tag: T, body: B, limits: Limits) -> TaskKey {
        let watch = (limits != Limits::NONE).then(|| Box::new(Watch { limits, interrupted: false }));
        let task = Task { tag, body: Some(body), watch, place: Place::Queued };
        self.len += 1;
        if let Some(row) = self.free
            && let Row::Free { generation, next } = self.rows[row as usize]
        {
            self.free = next;
            self.rows[row as usize] = Row::Used { generation, task };
            return TaskKey::new(row, generation);
        }
        let row = u32::try_from(self.rows.len()).expect("fewer than 2^32 tasks fit into memory");
        self.rows.push(Row::Used { generation: self.birth, task });
        TaskKey::new(row, self.birth)
    }

    pub(super) fn get(&self, key: TaskKey) -> Option<&Task<T, B>> {
        match self.rows.get(key.row())? {
            Row::Used { generation, task } if TaskKey::new(key.row() as u32, *generation) == key => {
                Some(task)
            }
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, key: TaskKey) -> Option<&mut Task<T, B>> {
        match self.rows.get_mut(key.row())? {
            Row::Used { generation, task } if TaskKey::new(key.row() as u32, *generation) == key => {
                Some(task)
            }
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, key: TaskKey) -> Option<Task<T, B>> {
        self.get(key)?;
        let row = key.row() as u32;
        let generation = (key.0 >> 32) as u32;
        let vacant = Row::Free { generation: generation.wrapping_add(1).max(1), next: self.free };
        let old = std::mem::replace(&mut self.rows[row as usize], vacant);
        self.free = Some(row);
        self.len -= 1;
        if self.len == 0 && self.rows.len() > FLOOD {
            self.forget_flood();
        }
        match old {
            Row::Used { task, .. } => Some(task),
            Row::Free { .. } => None,
        }
    }

    /// Gives the memory of a past flood back.
    fn forget_flood(&mut self) {
        let generations = self.rows.iter().map(|row| match row {
            Row::Used { generation, .. } | Row::Free { generation, .. } => *generation,
        });
        self.birth = generations.max().unwrap_or(0).wrapping_add(1).max(1);
        self.rows = Vec::new();
        self.free = None;
    }

    /// The tasks whose tags are `wanted`, oldest row first.
    pub(super) fn keys(&self, wanted: impl Fn(&T) -> bool) -> Vec<TaskKey> {
        let rows = self.rows.iter().enumerate();
        rows.filter_map(|(row, r)| match r {
            Row::Used { generation, task } if wanted(&task.tag) => {
                Some(TaskKey::new(row as u32, *generation))
            }
            Row::Used { .. } | Row::Free { .. } => None,
        })
        .collect()
    }

    /// Takes every task out, oldest row first.
    pub(super) fn drain(&mut self) -> Vec<Task<T, B>> {
        self.keys(|_| true).into_iter().filter_map(|key| self.remove(key)).collect()
    }
}
