//! The pool's decisions, without any I/O: who runs what, what a dead worker cost, which limit fires, who is replaced.
//!
//! Events come in as method calls with the time passed along; what must be done in the world goes out through
//! [`Channels`] (the rings) and [`Action`]s (signals, processes, verdicts). Nothing here waits, locks or asks a clock, so
//! a simulation can drive it through any history.
//!
//! A *task* is one unit that a worker runs. Its life: queued → handed to a worker's ring → claimed by the worker →
//! finished. Until it is claimed it can be recalled and given to somebody else; once claimed it is never run again.

mod action;
mod dispatch;
mod limits;
mod restart;
mod roster;
mod staff;
mod tasks;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

pub use action::{Action, Channels, Config, Failure, Phase};
pub use restart::RestartPolicy;
pub use roster::{WorkerId, WorkerState};
pub use tasks::{Limits, TaskKey};

use crate::sys::{ExitStatus, Moment};
use roster::Roster;
use tasks::{Place, Tasks};

/// How long a worker that was told to terminate may take before it is killed.
pub const TERMINATE_GRACE: Duration = Duration::from_millis(500);

/// How long a worker that was signalled on purpose gets no new task: it may be about to die of the signal.
const SURVIVAL: Duration = Duration::from_millis(100);

/// The exit code of a worker that leaves because it has done its share.
pub const EX_RECYCLE: i32 = 155;

/// The state machine. `T` identifies the owner of a task to the engine, `B` is what travels to the worker.
#[derive(Debug)]
pub struct Scheduler<T, B> {
    config: Config,
    phase: Phase,
    tasks: Tasks<T, B>,
    queue: VecDeque<TaskKey>,
    roster: Roster,
    target: u32,
    /// No worker has room: until something changes there is no point in looking again.
    saturated: bool,
    /// Mean run time of recent tasks; sizes the read-ahead.
    mean_run_ns: Option<u64>,
    /// When to look whether a worker that was thought idle has taken what it was given.
    doubt_at: Option<Moment>,
    restart: restart::Restarts,
    /// Streams of tasks that are still being fed: work is to come although none may be pending.
    streams: usize,
    actions: Vec<Action<T>>,
}

impl<T: Clone, B> Scheduler<T, B> {
    /// A pool with nobody in it; asks for its first workers at once.
    pub fn new(config: Config) -> Self {
        let mut this = Self {
            phase: Phase::Running,
            tasks: Tasks::new(),
            queue: VecDeque::new(),
            roster: Roster::new(),
            target: config.workers,
            saturated: true,
            mean_run_ns: None,
            doubt_at: None,
            restart: restart::Restarts::new(config.restart.clone()),
            streams: 0,
            actions: Vec::new(),
            config,
        };
        this.fill_seats();
        this
    }

    /// Whether the next task will have to queue: nobody has room.
    pub const fn is_saturated(&self) -> bool {
        self.saturated
    }

    /// Where the pool is in its life.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Tasks that have not ended.
    pub const fn pending(&self) -> usize {
        self.tasks.len()
    }

    /// Tasks that no worker has been given.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// How many workers are wanted.
    pub const fn target(&self) -> u32 {
        self.target
    }

    /// Whether nothing is left to do and nobody is left to do it.
    pub fn is_over(&self) -> bool {
        self.phase != Phase::Running && self.is_idle() && self.roster.is_empty()
    }

    /// Whether nothing is pending and nothing is announced.
    const fn is_idle(&self) -> bool {
        self.tasks.len() == 0
            && (self.streams == 0 || !matches!(self.phase, Phase::Running | Phase::Draining))
    }

    /// A stream of tasks begins: a draining pool waits for its end.
    pub const fn open_stream(&mut self) {
        self.streams += 1;
    }

    /// A stream of tasks has ended.
    pub fn close_stream(&mut self) {
        self.streams = self.streams.saturating_sub(1);
        self.let_go();
    }

    /// What must be done in the world, in order; the list is handed over.
    pub fn take_actions(&mut self, out: &mut Vec<Action<T>>) {
        out.append(&mut self.actions);
    }

    /// Whether there is anything for [`Scheduler::take_actions`].
    pub const fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Accepts a task. The caller has checked that the pool is running.
    pub fn submit<C: Channels<Body = B>>(
        &mut self,
        tag: T,
        body: B,
        limits: Limits,
        now: Moment,
        channels: &mut C,
    ) -> TaskKey {
        let key = self.tasks.insert(tag, body, limits);
        self.queue.push_back(key);
        if !self.saturated {
            self.dispatch(now, channels);
        }
        key
    }

    /// A worker has published the result of a task. Answers whose it was; `None` if the task had ended before.
    pub fn finished(&mut self, worker: WorkerId, key: TaskKey, ran: Duration) -> Option<T> {
        let task = self.tasks.get(key)?;
        if task.place != Place::At(worker) {
            return None;
        }
        if let Some(w) = self.roster.get_mut(worker) {
            w.forget(key);
            w.prove();
            self.restart.proven();
        }
        self.roster.freshen(worker);
        self.learn(ran);
        self.saturated = false;
        self.tasks.remove(key).map(|task| task.tag)
    }

    /// Uses what has become free: hands out queued tasks, moves tasks to idle workers, lets a drained pool go.
    pub fn settle<C: Channels<Body = B>>(&mut self, now: Moment, channels: &mut C) {
        if !self.saturated {
            self.dispatch(now, channels);
            if self.queue.is_empty() {
                self.share(now, channels);
            }
        }
        self.let_go();
    }

    /// The worker's process exists.
    pub fn started(&mut self, worker: WorkerId) {
        if let Some(w) = self.roster.get_mut(worker) {
            w.has_process = true;
            self.saturated = false;
        }
        match self.phase {
            Phase::Running | Phase::Draining => self.let_go(),
            Phase::Terminating | Phase::Broken => self.actions.push(Action::Kill(worker)),
        }
    }

    /// The worker has run its initializer and takes tasks.
    pub fn up(&mut self, worker: WorkerId) {
        if let Some(w) = self.roster.get_mut(worker)
            && w.state == WorkerState::Starting
        {
            w.state = WorkerState::Up;
            w.trust();
            self.saturated = false;
            self.roster.freshen(worker);
            self.restart.came_up();
            self.fill_seats();
        }
    }

    /// The worker has said that it claims nothing more.
    pub fn leaving<C: Channels<Body = B>>(&mut self, worker: WorkerId, now: Moment, channels: &mut C) {
        let Some(w) = self.roster.get_mut(worker) else { return };
        if matches!(w.state, WorkerState::Starting | WorkerState::Up) {
            w.state = WorkerState::Leaving;
        }
        self.take_back(worker, channels);
        self.dispatch(now, channels);
        self.fill_seats();
    }

    /// The worker's process is gone and everything it had published was delivered.
    pub fn gone<C: Channels<Body = B>>(
        &mut self,
        worker: WorkerId,
        status: ExitStatus,
        now: Moment,
        channels: &mut C,
    ) {
        let running = channels.running(worker);
        self.take_back(worker, channels);
        let Some(w) = self.roster.remove(worker) else { return };
        let mut lost = false;
        for key in w.handed.iter().copied() {
            lost = true;
            if let Some(task) = self.tasks.remove(key) {
                let why = if w.condemned == Some(key) {
                    Failure::Terminated { status: Some(status) }
                } else {
                    let ran =
                        running.filter(|(k, _)| *k == key).map_or(Duration::ZERO, |(_, t)| now.since(t));
                    Failure::Lost { worker, status, ran }
                };
                self.actions.push(Action::Fail { tag: task.tag, why });
            }
        }
        self.replace(&w, status, lost, now, channels);
        self.saturated = false;
        self.settle(now, channels);
    }

    /// The worker's process could not be started at all.
    pub fn not_started<C: Channels<Body = B>>(&mut self, worker: WorkerId, now: Moment, channels: &mut C) {
        self.gone(worker, ExitStatus::Unknown, now, channels);
    }

    /// The state of a worker, if it is still on the roster.
    pub fn state(&self, worker: WorkerId) -> Option<WorkerState> {
        self.roster.get(worker).map(|w| w.state)
    }

    /// How many tasks a worker has been given that have not ended.
    pub fn load(&self, worker: WorkerId) -> usize {
        self.roster.get(worker).map_or(0, |w| w.handed.len())
    }

    /// Whose task it is, if it has not ended.
    pub fn tag(&self, key: TaskKey) -> Option<&T> {
        self.tasks.get(key).map(|task| &task.tag)
    }

    /// Which worker has been given the task.
    pub fn worker_of(&self, key: TaskKey) -> Option<WorkerId> {
        match self.tasks.get(key)?.place {
            Place::Queued => None,
            Place::At(id) => Some(id),
        }
    }

    /// When [`Scheduler::tick`] is due next. `None`: nothing is pending, and nobody needs to wake up.
    pub fn next_deadline(&self) -> Option<Moment> {
        let workers =
            self.roster.iter().flat_map(|w| [w.check_at, w.kill_at, w.paused_until, w.rests_until]).flatten();
        workers.chain(self.doubt_at).chain(self.restart.resume_at()).min()
    }

    /// Time has passed: fires what is due.
    pub fn tick<C: Channels<Body = B>>(&mut self, now: Moment, channels: &mut C) {
        if self.restart.resume(now) {
            self.fill_seats();
        }
        if self.doubt_at.is_some_and(|at| at <= now) {
            self.doubt(now, channels);
        }
        let due: Vec<_> =
            self.roster.iter().filter(|w| w.check_at.is_some_and(|at| at <= now)).map(|w| w.id).collect();
        for id in due {
            self.check_limits(id, now, channels);
        }
        for w in self.roster.iter_mut() {
            if w.rests_until.is_some_and(|at| at <= now) {
                w.rests_until = None;
                w.full &= !w.handed.is_empty();
                self.saturated = false;
            }
            if w.paused_until.is_some_and(|at| at <= now) {
                w.paused_until = None;
                self.saturated = false;
            }
            if w.kill_at.is_some_and(|at| at <= now) {
                w.kill_at = None;
                if w.has_process {
                    self.actions.push(Action::Kill(w.id));
                }
            }
        }
        self.settle(now, channels);
    }
}
