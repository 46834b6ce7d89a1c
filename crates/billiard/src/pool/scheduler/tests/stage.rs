//! A kind world for tests that tell a story: nothing happens unless the test says so.

use std::time::Duration;

use super::world::{Chaos, Fate, Mail, Step, World};
use crate::pool::scheduler::{Action, Config, Failure, Limits, RestartPolicy, Scheduler, WorkerId};
use crate::sys::{ExitStatus, Moment};

pub(super) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) fn workers(n: u32) -> Config {
    Config { workers: n, tasks_per_worker: None, restart: RestartPolicy::default() }
}

pub(super) const fn soft(limit: Duration) -> Limits {
    Limits { soft: Some(limit), hard: None }
}

pub(super) const fn hard(limit: Duration) -> Limits {
    Limits { soft: None, hard: Some(limit) }
}

/// An action, without what only the engine needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Did {
    Lost(u64),
    TimedOut(u64),
    Ended(u64),
    Broken(u64),
    Start,
    Inspect(usize),
    Interrupt(u64),
    Terminate(usize),
    Kill(usize),
    Retire(usize),
    Broke,
}

/// A pool whose workers are named by the order in which they were asked for.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) pool: Scheduler<u64, u64>,
    pub(super) world: World,
    pub(super) ids: Vec<WorkerId>,
}

impl Stage {
    /// Nobody has come up yet.
    pub(super) fn empty(config: Config, capacity: usize) -> Self {
        let world = World::new(1, capacity, config.tasks_per_worker, Chaos::default());
        Self { pool: Scheduler::new(config), world, ids: Vec::new() }
    }

    /// Everybody is up.
    pub(super) fn new(config: Config) -> Self {
        Self::with_rings(config, 64)
    }

    pub(super) fn with_rings(config: Config, capacity: usize) -> Self {
        let mut this = Self::empty(config, capacity);
        this.welcome();
        this
    }

    /// Performs what the scheduler wants as far as it is about births, lets these succeed, and answers the rest.
    pub(super) fn welcome(&mut self) -> Vec<Did> {
        let before = self.ids.len();
        let did = self.did();
        for worker in before..self.ids.len() {
            self.rise(worker);
        }
        did
    }

    pub(super) fn rise(&mut self, worker: usize) {
        let id = self.ids[worker];
        self.pool.started(id);
        self.world.raise(id);
        self.drain(worker);
        self.settle();
    }

    pub(super) fn now(&self) -> Moment {
        Moment(self.world.facts().clock)
    }

    pub(super) fn settle(&mut self) {
        let now = self.now();
        self.world.facts().calls = 0;
        self.pool.settle(now, &mut self.world);
    }

    pub(super) fn submit_with(&mut self, limits: Limits) -> u64 {
        let tag = self.world.facts().fates.len() as u64;
        self.world.facts().fates.push(Fate { limits, ..Fate::default() });
        let now = self.now();
        self.pool.submit(tag, tag, limits, now, &mut self.world);
        self.settle();
        tag
    }

    pub(super) fn submit(&mut self, n: usize) -> Vec<u64> {
        (0..n).map(|_| self.submit_with(Limits::NONE)).collect()
    }

    /// The worker claims and begins its next task.
    pub(super) fn begin(&mut self, worker: usize) -> Option<u64> {
        self.world.facts().calls = 0;
        self.world.begin(self.ids[worker])
    }

    /// The worker finishes what it runs, and the engine hears of it.
    pub(super) fn finish(&mut self, worker: usize) {
        self.world.finish(self.ids[worker]);
        self.drain(worker);
        self.settle();
    }

    /// The worker runs whatever it is given until there is nothing left.
    pub(super) fn work_off(&mut self, worker: usize) -> Vec<u64> {
        let mut done = Vec::new();
        while let Some(tag) = self.begin(worker) {
            self.finish(worker);
            done.push(tag);
        }
        done
    }

    pub(super) fn drain(&mut self, worker: usize) {
        let (id, now) = (self.ids[worker], self.now());
        loop {
            let mail = self.world.facts().worker(id).mail.pop_front();
            match mail {
                None => return,
                Some(Mail::Up) => self.pool.up(id),
                Some(Mail::Result { key, tag, ran, last }) => {
                    if let Some(told) = self.pool.finished(id, key, Duration::from_nanos(ran)) {
                        assert_eq!(told, tag);
                        self.world.facts().fates[tag as usize].ended = Some("finished");
                    }
                    if last {
                        self.pool.leaving(id, now, &mut self.world);
                    }
                }
            }
        }
    }

    /// The worker dies, and the engine hears of it.
    pub(super) fn die(&mut self, worker: usize, status: ExitStatus) {
        let id = self.ids[worker];
        if !self.world.facts().workers.contains_key(&id) {
            self.world.facts().seat(id);
        }
        self.world.die(id, status);
        self.drain(worker);
        let now = self.now();
        self.pool.gone(id, status, now, &mut self.world);
    }

    /// Time passes, and the scheduler ticks if it wanted to by then.
    pub(super) fn pass(&mut self, span: Duration) {
        let end = self.now().after(span);
        while let Some(at) = self.pool.next_deadline().filter(|at| *at <= end) {
            let at = at.max(self.now());
            self.world.facts().clock = at.0;
            self.pool.tick(at, &mut self.world);
            assert!(self.pool.next_deadline().is_none_or(|next| next > at));
        }
        self.world.facts().clock = end.0;
    }

    /// Time passes, and everything that was decided meanwhile.
    pub(super) fn after(&mut self, span: Duration) -> Vec<Did> {
        self.pass(span);
        self.did()
    }

    pub(super) fn end_job(&mut self, worker: usize) {
        let now = self.now();
        self.pool.end_job(self.ids[worker], now, &mut self.world);
    }

    pub(super) fn terminate(&mut self) {
        let now = self.now();
        self.pool.terminate(now, &mut self.world);
    }

    pub(super) fn stop(&mut self, worker: usize) {
        self.world.facts().worker(self.ids[worker]).stopped = true;
    }

    /// What lies in the rings, unclaimed.
    pub(super) fn unclaimed(&self) -> Vec<usize> {
        let facts = self.world.facts();
        self.ids.iter().map(|id| facts.workers.get(id).map_or(0, |w| w.unclaimed())).collect()
    }

    pub(super) fn load(&self) -> Vec<usize> {
        self.ids.iter().map(|id| self.pool.load(*id)).collect()
    }

    pub(super) fn is_publishing(&self, worker: usize) -> bool {
        matches!(self.world.facts().worker(self.ids[worker]).step, Step::Published(_))
    }

    /// What was decided since the last look.
    pub(super) fn did(&mut self) -> Vec<Did> {
        let mut actions = Vec::new();
        self.pool.take_actions(&mut actions);
        actions.into_iter().map(|action| self.name(action)).collect()
    }

    fn name(&mut self, action: Action<u64>) -> Did {
        let who = |id: WorkerId| self.ids.iter().position(|known| *known == id).expect("a known worker");
        match action {
            Action::Start(id) => {
                self.ids.push(id);
                Did::Start
            }
            Action::Fail { tag, why } => {
                self.world.facts().fates[tag as usize].ended = Some("failed");
                match why {
                    Failure::Lost { .. } => Did::Lost(tag),
                    Failure::TimeLimit { .. } => Did::TimedOut(tag),
                    Failure::Terminated { .. } => Did::Ended(tag),
                    Failure::Broken => Did::Broken(tag),
                }
            }
            Action::Inspect(id) => Did::Inspect(who(id)),
            Action::Interrupt { tag, .. } => Did::Interrupt(tag),
            Action::Terminate(id) => Did::Terminate(who(id)),
            Action::Kill(id) => Did::Kill(who(id)),
            Action::Retire(id) => Did::Retire(who(id)),
            Action::Broke => Did::Broke,
        }
    }
}
