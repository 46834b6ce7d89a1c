//! The pool's decisions, without any I/O: who runs what, what a dead worker cost, which limit fires, who is replaced.
//!
//! Events come in as method calls with the time passed along; what must be done in the world goes out through
//! [`Channels`] (the rings) and [`Action`]s (signals, processes, verdicts). Nothing here waits, locks or asks a clock, so
//! a simulation can drive it through any history.
//!
//! A *task* is one unit that a worker runs. Its life: queued → handed to a worker's ring → claimed by the worker →
//! finished. Until it is claimed it can be recalled and given to somebody else; once claimed it is never run again.

mod dispatch;
mod limits;
mod restart;
mod roster;
mod tasks;

#[cfg(test)]
mod tests {}

use std::collections::VecDeque;
use std::time::Duration;

pub use restart::RestartPolicy;
pub use roster::{WorkerId, WorkerState};
pub use tasks::{Limits, TaskKey};

use crate::sys::{ExitStatus, Moment};
use roster::{Roster, Worker};
use tasks::{Place, Tasks};

/// How long a worker that was told to terminate may take before it is killed.
pub const TERMINATE_GRACE: Duration = Duration::from_millis(500);

/// How long a worker that was signalled on purpose gets no new task: it may be about to die of the signal.
const SURVIVAL: Duration = Duration::from_secs(1);

/// The exit code of a worker that leaves because it has done its share.
pub const EX_RECYCLE: i32 = 155;

/// The rings, as the scheduler sees them.
pub trait Channels {
    /// What a task carries on its way to a worker.
    type Body;

    /// Puts a task into a worker's ring and wakes the worker if it sleeps; gives the body back if there is no room.
    fn hand(&mut self, worker: WorkerId, task: TaskKey, body: Self::Body) -> Result<(), Self::Body>;

    /// Takes a task back out of a worker's ring unless the worker has claimed it.
    fn recall(&mut self, worker: WorkerId, task: TaskKey) -> Option<Self::Body>;

    /// What the worker has claimed and not yet finished, and since when.
    fn running(&self, worker: WorkerId) -> Option<(TaskKey, Moment)>;
}

/// Why a task ended without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The worker died while it ran the task.
    Lost {
        /// Who.
        worker: WorkerId,
        /// How the worker ended.
        status: ExitStatus,
        /// How long the task had been running.
        ran: Duration,
    },
    /// The hard limit fired.
    TimeLimit {
        /// Who ran it.
        worker: WorkerId,
        /// The limit that was passed.
        limit: Duration,
    },
    /// Somebody ended the pool, or this very job.
    Terminated {
        /// How the worker ended, if one was running the task.
        status: Option<ExitStatus>,
    },
    /// No worker can be started any more.
    Broken,
}

/// What the engine must do in the world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action<T> {
    /// Tell the owner that its task ended without a result.
    Fail {
        /// Whose task.
        tag: T,
        /// The reason.
        why: Failure,
    },
    /// Start a worker process for this seat.
    Start(WorkerId),
    /// Write down where the worker's interpreter is, since a limit is about to fire.
    Inspect(WorkerId),
    /// The task has passed its soft limit: tell its owner, then interrupt exactly this task.
    Interrupt {
        /// Whose task.
        tag: T,
        /// Who runs it.
        worker: WorkerId,
        /// What to interrupt.
        task: TaskKey,
        /// The limit that was passed.
        limit: Duration,
    },
    /// Ask the worker to terminate, with its group if it leads one.
    Terminate(WorkerId),
    /// End the worker by force, with its group if it leads one.
    Kill(WorkerId),
    /// Ask the worker to leave once its ring is empty.
    Retire(WorkerId),
    /// The pool can start no workers any more.
    Broke,
}

/// Where the pool is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Work is accepted.
    Running,
    /// No new work; what was accepted is finished.
    Draining,
    /// Everything ends now.
    Terminating,
    /// Workers could not be started; everything pending has failed.
    Broken,
}

/// What a pool is told at its birth.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many workers there should be.
    pub workers: u32,
    /// Tasks after which a worker is replaced.
    pub tasks_per_worker: Option<u32>,
    /// When to give up restarting.
    pub restart: RestartPolicy,
}

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
        self.phase != Phase::Running && self.tasks.len() == 0 && self.roster.is_empty()
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
        for key in w.handed.iter().copied() {
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
        self.replace(&w, status, now);
        self.saturated = false;
        self.settle(now, channels);
    }

    /// The worker's process could not be started at all.
    pub fn not_started<C: Channels<Body = B>>(&mut self, worker: WorkerId, now: Moment, channels: &mut C) {
        self.gone(worker, ExitStatus::Unknown, now, channels);
    }

    fn replace(&mut self, w: &Worker, status: ExitStatus, now: Moment) {
        if !matches!(self.phase, Phase::Running | Phase::Draining) {
            return;
        }
        let regular = matches!(status, ExitStatus::Code(0 | EX_RECYCLE));
        let expected = regular || w.told_to_end || w.state == WorkerState::Dying;
        if w.state == WorkerState::Starting && !w.told_to_end {
            self.restart.failed_start(now);
        }
        if !expected && !w.proven {
            self.restart.unproven_loss(now);
        }
        if self.restart.exhausted() {
            self.break_down();
        } else {
            self.fill_seats();
        }
    }

    fn break_down(&mut self) {
        self.phase = Phase::Broken;
        self.actions.push(Action::Broke);
        self.fail_everything(&Failure::Broken);
        self.end_workers(false);
    }

    /// Asks for the processes that are missing, as far as the restart policy lets us.
    fn fill_seats(&mut self) {
        let wanted = match self.phase {
            Phase::Running => self.target,
            // What is queued still has to be run by somebody; more workers than tasks would be born to leave.
            Phase::Draining => self.target.min(u32::try_from(self.tasks.len()).unwrap_or(u32::MAX)),
            Phase::Terminating | Phase::Broken => return,
        };
        if self.restart.holding() {
            return;
        }
        while self.roster.staying() < wanted {
            if self.restart.probing() && self.roster.iter().any(|w| w.state == WorkerState::Starting) {
                return;
            }
            let id = self.roster.admit(self.config.tasks_per_worker);
            self.actions.push(Action::Start(id));
        }
    }

    /// Stops accepting; the workers leave when everything is done.
    pub fn close(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::Draining;
            self.let_go();
        }
    }

    /// Ends everything: pending tasks fail, idle workers leave, busy ones are terminated and, if need be, killed.
    pub fn terminate<C: Channels<Body = B>>(&mut self, now: Moment, channels: &mut C) {
        if self.phase == Phase::Terminating {
            return;
        }
        self.phase = Phase::Terminating;
        let ids: Vec<_> = self.roster.iter().map(|w| w.id).collect();
        for id in ids {
            self.take_back(id, channels);
        }
        let busy: Vec<_> = self.roster.iter().filter(|w| !w.handed.is_empty()).map(|w| w.id).collect();
        self.fail_everything(&Failure::Terminated { status: None });
        for id in busy {
            self.doom(id, now);
        }
        self.end_workers(true);
        for w in self.roster.iter_mut() {
            w.kill_at.get_or_insert(now.after(TERMINATE_GRACE));
        }
    }

    fn fail_everything(&mut self, why: &Failure) {
        self.queue.clear();
        for w in self.roster.iter_mut() {
            w.handed.clear();
        }
        for task in self.tasks.drain() {
            self.actions.push(Action::Fail { tag: task.tag, why: why.clone() });
        }
    }

    /// Sends everybody home who is not already on the way.
    fn end_workers(&mut self, gently: bool) {
        for w in self.roster.iter_mut() {
            if w.state == WorkerState::Dying {
                continue;
            }
            w.told_to_end = true;
            if w.has_process {
                self.actions.push(if gently && w.state != WorkerState::Starting {
                    Action::Retire(w.id)
                } else {
                    Action::Terminate(w.id)
                });
            }
            w.state = WorkerState::Dying;
        }
    }

    /// Lets workers leave that a draining pool will not need any more.
    fn let_go(&mut self) {
        if self.phase != Phase::Draining || self.tasks.len() > 0 {
            return;
        }
        for w in self.roster.iter_mut() {
            if w.has_process && matches!(w.state, WorkerState::Starting | WorkerState::Up) {
                w.state = WorkerState::Leaving;
                w.told_to_end = true;
                self.actions.push(Action::Retire(w.id));
            }
        }
    }

    /// Adds `n` workers.
    pub fn grow(&mut self, n: u32) {
        self.target = self.target.saturating_add(n);
        self.saturated = false;
        self.fill_seats();
    }

    /// Sends `n` idle workers home and does not replace them; all of them or none. Answers who goes.
    pub fn shrink<C: Channels<Body = B>>(&mut self, n: u32, channels: &mut C) -> Option<Vec<WorkerId>> {
        let idle: Vec<_> = self
            .roster
            .iter()
            .filter(|w| {
                w.has_process && w.accepts() && w.handed.is_empty() && channels.running(w.id).is_none()
            })
            .map(|w| w.id)
            .take(n as usize)
            .collect();
        if idle.len() < n as usize {
            return None;
        }
        self.target -= n;
        for &id in &idle {
            self.retire(id);
        }
        Some(idle)
    }

    /// Replaces every worker once it has finished what it runs.
    pub fn renew<C: Channels<Body = B>>(&mut self, now: Moment, channels: &mut C) {
        let ids: Vec<_> = self.roster.iter().filter(|w| w.has_process && w.accepts()).map(|w| w.id).collect();
        for id in ids {
            self.take_back(id, channels);
            self.retire(id);
        }
        self.saturated = false;
        self.fill_seats();
        self.dispatch(now, channels);
    }

    fn retire(&mut self, id: WorkerId) {
        if let Some(w) = self.roster.get_mut(id) {
            w.state = WorkerState::Leaving;
            w.told_to_end = true;
            self.actions.push(Action::Retire(id));
        }
    }

    /// The caller is about to signal this worker on purpose: only what it runs now may be hit, and if that kills it, the
    /// task ends as terminated. The worker gets nothing new until it is clear whether it survives.
    pub fn end_job<C: Channels<Body = B>>(&mut self, worker: WorkerId, now: Moment, channels: &mut C) {
        self.take_back(worker, channels);
        if let Some(w) = self.roster.get_mut(worker) {
            w.told_to_end = true;
            w.condemned = channels.running(worker).map(|(key, _)| key);
            w.paused_until = Some(now.after(SURVIVAL));
        }
        self.saturated = false;
        self.dispatch(now, channels);
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
        let workers = self.roster.iter().flat_map(|w| [w.check_at, w.kill_at, w.paused_until]).flatten();
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
