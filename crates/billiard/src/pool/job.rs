//! What the user submitted, from the moment it is accepted until somebody has taken its results.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Message;
use super::scheduler::Failure;

/// How one part of a job ended.
#[derive(Debug)]
pub enum Verdict {
    /// The function returned; the message is its value.
    Value(Message),
    /// The function raised; the message describes the error.
    Error(Message),
    /// It did not get to return.
    Failed(Box<Report>),
}

/// Why a part of a job has no result, with everything that is known about it.
#[derive(Debug)]
pub struct Report {
    /// The reason.
    pub why: Failure,
    /// Which part.
    pub part: u32,
    /// Process id of the worker.
    pub pid: Option<i32>,
    /// What the owner calls the worker.
    pub worker_name: Option<std::sync::Arc<str>>,
    /// Where the worker's interpreter was, as it wrote itself.
    pub last_words: Option<String>,
    /// How long it had been running.
    pub ran: Duration,
    /// The most memory the worker ever had resident, in KiB.
    pub peak_rss_kib: Option<u64>,
    /// Whether the kernel has killed something for memory when the worker died of SIGKILL; `None` where it does not count.
    pub out_of_memory: Option<bool>,
}

/// How the results of a job are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One result.
    Single,
    /// So many results, wanted together. The first failure decides.
    Batch(u32),
    /// Results that are taken one by one as they come, in the order of submission.
    Ordered,
    /// The same, in the order of arrival.
    Arrival,
}

/// What the pool's owner wants to hear about a job, besides its results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notify {
    /// When it has ended.
    pub done: bool,
    /// When a worker has begun it.
    pub accepted: bool,
    /// When a soft limit fires.
    pub soft_limit: bool,
}

#[derive(Debug)]
struct State {
    results: Results,
    /// Parts that have not ended; unknown while a stream is being fed.
    missing: u32,
    /// No further part will be added.
    fed: bool,
}

#[derive(Debug)]
enum Results {
    Single(Option<Verdict>),
    Batch(Vec<Option<Verdict>>),
    /// The verdicts from part number `first` on.
    Ordered(Box<Ordered>),
    Arrival(Box<Arrival>),
}

#[derive(Debug, Default)]
struct Ordered {
    first: u32,
    waiting: VecDeque<Option<Verdict>>,
}

#[derive(Debug, Default)]
struct Arrival {
    queue: VecDeque<(u32, Verdict)>,
}

/// A job. Shared by the engine and by whoever waits for it.
#[derive(Debug)]
pub struct Job {
    id: u64,
    /// The owner's own name for the job, handed back when it ends.
    token: u32,
    notify: Notify,
    done: AtomicBool,
    /// How many threads sleep, or are about to, until the job makes progress.
    watchers: AtomicU32,
    /// A part of a batch has failed.
    failed: AtomicBool,
    accepted: AtomicU32,
    accepted_ns: AtomicU64,
    accepted_pid: AtomicU32,
    state: Mutex<State>,
}

impl Job {
    /// A job without parts. They are counted with [`Job::expect`] when they are submitted.
    #[must_use]
    pub fn new(id: u64, token: u32, shape: Shape, notify: Notify) -> Self {
        let (results, missing, fed) = match shape {
            Shape::Single => (Results::Single(None), 1, true),
            Shape::Batch(n) => {
                let mut slots = Vec::new();
                slots.resize_with(n as usize, || None);
                (Results::Batch(slots), n, true)
            }
            Shape::Ordered => (Results::Ordered(Box::default()), 0, false),
            Shape::Arrival => (Results::Arrival(Box::default()), 0, false),
        };
        Self {
            id,
            token,
            notify,
            done: AtomicBool::new(missing == 0 && fed),
            watchers: AtomicU32::new(0),
            failed: AtomicBool::new(false),
            accepted: AtomicU32::new(0),
            accepted_ns: AtomicU64::new(0),
            accepted_pid: AtomicU32::new(0),
            state: Mutex::new(State { results, missing, fed }),
        }
    }

    /// The number of the job.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The owner's own name for it.
    #[must_use]
    pub const fn token(&self) -> u32 {
        self.token
    }

    /// What the owner wants to hear.
    #[must_use]
    pub const fn notify(&self) -> Notify {
        self.notify
    }

    /// Whether every part has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        // Pairs with the store in `complete`: the results are there.
        self.done.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more part of a stream was submitted.
    pub fn expect(&self) {
        self.lock().missing += 1;
    }

    /// No more parts will come. Answers whether that ends the job.
    pub fn fed(&self) -> bool {
        let mut state = self.lock();
        state.fed = true;
        let over = state.missing == 0;
        if over {
            self.done.store(true, Ordering::Release);
        }
        over
    }

    /// Stores how a part ended. Answers whether the whole job has ended with it, which happens once: with the last part, or
    /// with the first failure of a batch.
    pub fn complete(&self, part: u32, verdict: Verdict) -> bool {
        let mut state = self.lock();
        state.missing = state.missing.saturating_sub(1);
        if self.is_done() {
            return false;
        }
        let failed = !matches!(verdict, Verdict::Value(_));
        match &mut state.results {
            Results::Single(slot) => *slot = Some(verdict),
            Results::Batch(slots) => {
                if let Some(slot) = slots.get_mut(part as usize) {
                    *slot = Some(verdict);
                }
                if failed {
                    self.failed.store(true, Ordering::Release);
                }
            }
            Results::Ordered(stream) => {
                let Ordered { first, waiting } = &mut **stream;
                if let Some(index) = part.checked_sub(*first) {
                    let index = index as usize;
                    if waiting.len() <= index {
                        waiting.resize_with(index + 1, || None);
                    }
                    waiting[index] = Some(verdict);
                }
            }
            Results::Arrival(stream) => stream.queue.push_back((part, verdict)),
        }
        let over = (state.missing == 0 && state.fed) || self.has_failed();
        if over {
            self.done.store(true, Ordering::Release);
        }
        over
    }

    /// Takes the result of a single job, or the next one of a stream. `None`: nothing there now.
    pub fn take(&self) -> Option<(u32, Verdict)> {
        let mut state = self.lock();
        match &mut state.results {
            Results::Single(slot) => slot.take().map(|v| (0, v)),
            Results::Batch(_) => None,
            Results::Ordered(stream) => {
                let Ordered { first, waiting } = &mut **stream;
                let verdict = waiting.front_mut()?.take()?;
                waiting.pop_front();
                let part = *first;
                *first += 1;
                Some((part, verdict))
            }
            Results::Arrival(stream) => stream.queue.pop_front(),
        }
    }

    /// Whether [`Job::take`] would find something, or never will again.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.is_done() || self.has_waiting()
    }

    /// Whether [`Job::take`] would find something now.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        match &self.lock().results {
            Results::Single(slot) => slot.is_some(),
            Results::Ordered(stream) => stream.waiting.front().is_some_and(Option::is_some),
            Results::Arrival(stream) => !stream.queue.is_empty(),
            Results::Batch(_) => false,
        }
    }

    /// Takes all results of a finished batch.
    pub fn take_batch(&self) -> Vec<Option<Verdict>> {
        match &mut self.lock().results {
            Results::Batch(slots) => std::mem::take(slots),
            _ => Vec::new(),
        }
    }

    /// Whether a part of a batch has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Parts that have not ended.
    #[must_use]
    pub fn missing(&self) -> u64 {
        u64::from(self.lock().missing)
    }

    /// One more thread waits for news. Counted, since several may wait for one job and none may be forgotten when another
    /// one gives up.
    pub(super) fn watch(&self) {
        self.watchers.fetch_add(1, Ordering::SeqCst);
    }

    /// That thread waits no more.
    pub(super) fn unwatch(&self) {
        self.watchers.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::SeqCst) > 0
    }

    /// A worker has begun a part.
    pub(super) fn accept(&self, pid: i32, at_ns: u64) {
        self.accepted_ns.store(at_ns, Ordering::Relaxed);
        self.accepted_pid.store(pid as u32, Ordering::Relaxed);
        // Release: whoever sees the count sees who and when.
        self.accepted.fetch_add(1, Ordering::Release);
    }

    /// This worker has finished a part.
    pub(super) fn ran_by(&self, pid: i32) {
        // Relaxed: seen together with the result.
        self.accepted_pid.store(pid as u32, Ordering::Relaxed);
    }

    /// The process id of the last worker that finished a part, or has said that it began one.
    #[must_use]
    pub fn worker(&self) -> Option<i32> {
        let pid = self.accepted_pid.load(Ordering::Relaxed) as i32;
        (pid > 0).then_some(pid)
    }

    /// Who began it, and when, if a worker has said so.
    #[must_use]
    pub fn acceptance(&self) -> Option<(i32, u64)> {
        (self.accepted.load(Ordering::Acquire) > 0).then(|| {
            (self.accepted_pid.load(Ordering::Relaxed) as i32, self.accepted_ns.load(Ordering::Relaxed))
        })
    }

    /// How many parts were begun, as far as it was asked for.
    #[must_use]
    pub fn accepted_parts(&self) -> u32 {
        self.accepted.load(Ordering::Acquire)
    }
}
