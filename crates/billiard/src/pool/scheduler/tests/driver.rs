//! Stands in for the engine: delivers what workers say, performs actions with random delays, and checks the promises after
//! every pass.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::world::{Chaos, Mail, Rng, SIGKILL, SIGTERM, Step, World};
use crate::pool::scheduler::tasks::Place;
use crate::pool::scheduler::{
    Action, Config, Failure, Limits, Phase, Scheduler, TaskKey, WorkerId, WorkerState,
};
use crate::sys::{ExitStatus, Moment};

/// How late the model's engine wakes up at most.
pub(super) const LATE: u64 = 200_000;
/// What the scheduler may add to a limit.
const GRAIN: u64 = 1_000_000;

#[derive(Debug)]
pub(super) struct Driver {
    pub(super) pool: Scheduler<u64, u64>,
    pub(super) world: World,
    pub(super) rng: Rng,
    /// Chance per ten thousand that a process cannot be made.
    pub(super) unforkable: u64,
    /// Processes to be made, and births to be reported.
    starts: BTreeMap<WorkerId, u64>,
    births: BTreeMap<WorkerId, u64>,
    /// Deaths that were noticed, and when they are reported.
    deaths: BTreeMap<WorkerId, u64>,
    /// When mail is looked at.
    rounds: Option<u64>,
    /// The next tick, a little late.
    alarm: Option<(Moment, u64)>,
    pub(super) keys: BTreeMap<u64, TaskKey>,
    no_more_starts: bool,
    pub(super) broke: bool,
    pub(super) most_pending: usize,
    most_workers: usize,
}

impl Driver {
    pub(super) fn new(seed: u64, config: Config, capacity: usize, chaos: Chaos) -> Self {
        let world = World::new(seed ^ 0x5eed, capacity, config.tasks_per_worker, chaos);
        let mut this = Self {
            pool: Scheduler::new(config),
            world,
            rng: Rng(seed),
            unforkable: 0,
            starts: BTreeMap::new(),
            births: BTreeMap::new(),
            deaths: BTreeMap::new(),
            rounds: None,
            alarm: None,
            keys: BTreeMap::new(),
            no_more_starts: false,
            broke: false,
            most_pending: 0,
            most_workers: 0,
        };
        this.perform();
        this
    }

    pub(super) fn clock(&self) -> u64 {
        self.world.facts().clock
    }

    pub(super) fn now(&self) -> Moment {
        Moment(self.clock())
    }

    pub(super) fn submit(&mut self, limits: Limits) -> u64 {
        let tag = self.world.facts().fates.len() as u64;
        self.world.facts().fates.push(super::world::Fate { limits, ..Default::default() });
        let now = self.now();
        let key = self.pool.submit(tag, tag, limits, now, &mut self.world);
        self.keys.insert(tag, key);
        self.most_pending = self.most_pending.max(self.pool.pending());
        tag
    }

    /// The moment of whatever happens next.
    pub(super) fn next_event(&mut self) -> Option<u64> {
        let due = self.pool.next_deadline();
        if self.alarm.map(|(at, _)| at) != due {
            self.alarm = due.map(|at| (at, at.0.saturating_add(self.rng.skewed(LATE))));
        }
        let own = self.starts.values().chain(self.births.values()).chain(self.deaths.values()).min().copied();
        let world = self.world.facts().next_event();
        [own, world, self.rounds, self.alarm.map(|(_, at)| at)].into_iter().flatten().min()
    }

    /// Goes on to `at`: the world first, then one pass of the engine.
    pub(super) fn advance(&mut self, at: u64) {
        {
            let mut facts = self.world.facts();
            facts.clock = facts.clock.max(at);
            facts.run_due();
        }
        self.pass();
    }

    /// What the engine does whenever it is awake.
    pub(super) fn pass(&mut self) {
        let now = self.now();
        self.world.facts().calls = 0;
        self.fork_due(now);
        if self.rounds.is_some_and(|at| at <= now.0) {
            self.rounds = None;
            self.drain_all(now);
        }
        let due: Vec<_> = self.deaths.iter().filter(|(_, at)| **at <= now.0).map(|(id, _)| *id).collect();
        for id in due {
            self.bury(id, now);
        }
        if self.alarm.is_some_and(|(_, at)| at <= now.0) {
            self.tick(now);
        }
        self.settle();
    }

    fn tick(&mut self, now: Moment) {
        self.alarm = None;
        self.drain_all(now);
        self.world.facts().answers.clear();
        self.pool.tick(now, &mut self.world);
        assert!(self.pool.next_deadline().is_none_or(|at| at > now), "tick leaves a deadline behind");
        self.no_limit_is_missed(now);
    }

    /// Lets the scheduler use what is free, performs what it wants, and looks whether all is well.
    pub(super) fn settle(&mut self) {
        let now = self.now();
        self.pool.settle(now, &mut self.world);
        self.nothing_waits_beside_an_idle_worker(now);
        self.perform();
        self.consistent();
        self.listen();
    }

    /// Notices mail and deaths; both take a while to be acted upon.
    fn listen(&mut self) {
        let facts = &mut *self.world.facts();
        for (id, w) in &facts.workers {
            if w.is_dead() && !self.births.contains_key(id) && !self.deaths.contains_key(id) {
                self.deaths.insert(*id, facts.clock + facts.rng.skewed(3_000_000));
            }
            if !w.mail.is_empty() && self.rounds.is_none() {
                self.rounds = Some(facts.clock + facts.rng.skewed(20_000));
            }
        }
    }

    fn fork_due(&mut self, now: Moment) {
        let due: Vec<_> = self.starts.iter().filter(|(_, at)| **at <= now.0).map(|(id, _)| *id).collect();
        for id in due {
            self.starts.remove(&id);
            if self.rng.chance(self.unforkable) {
                self.pool.not_started(id, now, &mut self.world);
                self.world.facts().workers.remove(&id);
                continue;
            }
            self.world.facts().fork(id);
            // The report may come later than the worker's first words.
            self.births.insert(id, now.0 + self.rng.skewed(200_000));
        }
        let due: Vec<_> = self.births.iter().filter(|(_, at)| **at <= now.0).map(|(id, _)| *id).collect();
        for id in due {
            self.births.remove(&id);
            self.pool.started(id);
        }
    }

    pub(super) fn drain_all(&mut self, now: Moment) {
        let ids: Vec<_> = self.world.facts().workers.keys().copied().collect();
        for id in ids {
            self.drain(id, now);
        }
    }

    fn drain(&mut self, id: WorkerId, now: Moment) {
        while let Some(mail) = self.next_mail(id) {
            match mail {
                Mail::Up => self.pool.up(id),
                Mail::Result { key, tag, ran, last } => {
                    match self.pool.finished(id, key, Duration::from_nanos(ran)) {
                        Some(told) => {
                            assert_eq!(told, tag, "a result goes to its owner");
                            self.end(tag, "finished");
                        }
                        None => {
                            let ended = self.world.facts().fates[tag as usize].ended;
                            assert!(ended.is_some(), "the result of task {tag} is dropped");
                        }
                    }
                    if last {
                        self.pool.leaving(id, now, &mut self.world);
                    }
                }
            }
        }
    }

    fn next_mail(&self, id: WorkerId) -> Option<Mail> {
        self.world.facts().worker(id).mail.pop_front()
    }

    fn bury(&mut self, id: WorkerId, now: Moment) {
        self.deaths.remove(&id);
        self.drain(id, now);
        let Step::Dead(status) = self.world.facts().worker(id).step else {
            panic!("{id:?} is reported gone and lives")
        };
        self.pool.gone(id, status, now, &mut self.world);
        assert_eq!(self.world.facts().worker(id).unclaimed(), 0, "tasks are buried with {id:?}");
        assert_eq!(self.pool.state(id), None);
        self.perform();
        self.world.facts().workers.remove(&id);
    }

    fn end(&mut self, tag: u64, how: &'static str) {
        self.keys.remove(&tag);
        let before = self.world.facts().fates[tag as usize].ended.replace(how);
        assert_eq!(before, None, "task {tag} ends again, this time as {how}");
    }

    fn perform(&mut self) {
        let mut actions = Vec::new();
        self.pool.take_actions(&mut actions);
        for action in actions {
            let now = self.clock();
            match action {
                Action::Fail { tag, why } => self.fail(tag, &why),
                Action::Start(id) => {
                    assert!(!self.no_more_starts, "{id:?} is started after the end");
                    self.world.facts().seat(id);
                    self.most_workers = self.most_workers.max(self.world.facts().workers.len());
                    self.starts.insert(id, now + self.rng.skewed(2_000_000));
                }
                Action::Inspect(id) => assert!(self.pool.state(id).is_some(), "{id:?} is nobody"),
                Action::Interrupt { tag, worker, task, limit } => {
                    let mut facts = self.world.facts();
                    let since = facts.seen_running(worker, task).expect("what is interrupted runs");
                    assert!(now - since.0 >= limit.as_nanos() as u64, "task {tag} is interrupted early");
                    let fate = &mut facts.fates[tag as usize];
                    assert_eq!(fate.limits.soft, Some(limit));
                    assert!(
                        !std::mem::replace(&mut fate.interrupted, true),
                        "task {tag} is interrupted again"
                    );
                    assert_eq!(fate.ended, None, "task {tag} is interrupted after its end");
                    facts.interrupt(worker, task);
                }
                Action::Terminate(id) => self.signal(id, SIGTERM),
                Action::Kill(id) => self.signal(id, SIGKILL),
                Action::Retire(id) => self.world.facts().retire(id),
                Action::Broke => {
                    assert!(!std::mem::replace(&mut self.broke, true), "a pool breaks once");
                    self.no_more_starts = true;
                    assert_eq!(self.pool.pending(), 0);
                }
            }
        }
    }

    fn signal(&mut self, id: WorkerId, number: i32) {
        let delay = self.rng.skewed(2_000_000);
        let mut facts = self.world.facts();
        facts.bar(id);
        facts.signal(id, delay, number);
    }

    fn fail(&mut self, tag: u64, why: &Failure) {
        let now = self.clock();
        {
            let mut facts = self.world.facts();
            let fate = facts.fates[tag as usize].clone();
            match *why {
                Failure::Lost { worker, status, .. } => {
                    assert_eq!(fate.claimed_by, Some(worker), "task {tag} was not begun by {worker:?}");
                    assert!(!fate.published, "task {tag} is lost after its end");
                    let w = facts.worker(worker);
                    assert!(matches!(w.step, Step::Dead(s) if s == status), "{worker:?} lives");
                    assert_ne!(w.condemned, Some(Some(tag)), "task {tag} was ended on purpose");
                }
                Failure::TimeLimit { worker, limit } => {
                    let key = self.keys[&tag];
                    assert_eq!(facts.last_seen(worker), Some(key), "what is ended for its limit runs");
                    let since = facts.seen_running(worker, key).expect("it was seen");
                    assert!(now - since.0 >= limit.as_nanos() as u64, "task {tag} is ended early");
                    assert_eq!(fate.limits.hard, Some(limit));
                    let soft_first = fate.limits.soft.is_some_and(|soft| soft <= limit);
                    assert!(fate.interrupted || !soft_first, "task {tag} got no warning");
                    let hit = facts.worker(worker).has_claim();
                    assert!(hit.is_none_or(|hit| hit == tag), "task {hit:?} is ended for the limit of {tag}");
                    facts.bar(worker);
                }
                Failure::Terminated { status: None } => assert!(self.no_more_starts, "nobody ended the pool"),
                Failure::Terminated { status: Some(_) } => {
                    let worker = fate.claimed_by.expect("somebody ran it");
                    assert!(facts.worker(worker).condemned == Some(Some(tag)), "task {tag} was not meant");
                    assert!(!fate.published);
                }
                Failure::Broken => assert_eq!(self.pool.phase(), Phase::Broken),
            }
        }
        self.end(tag, "failed");
    }

    /// The owner signals a worker on purpose.
    pub(super) fn end_job(&mut self, id: WorkerId, deadly: bool) {
        let now = self.now();
        self.pool.end_job(id, now, &mut self.world);
        let delay = self.rng.skewed(5_000_000);
        let mut facts = self.world.facts();
        let meant = facts.worker(id).has_claim();
        facts.worker(id).condemned = Some(meant);
        if deadly {
            facts.end_job(id, delay, meant);
        }
    }

    /// The owner takes back one task in three, as far as nobody has begun it.
    pub(super) fn withdraw(&mut self) {
        let now = self.now();
        let rest = self.rng.below(3);
        let withdrawn = self.pool.withdraw(|tag| tag % 3 == rest, now, &mut self.world);
        for tag in withdrawn {
            assert_eq!(tag % 3, rest, "task {tag} was not named");
            let claimed = self.world.facts().fates[tag as usize].claimed_by;
            assert_eq!(claimed, None, "task {tag} is taken back although somebody runs it");
            self.end(tag, "withdrawn");
        }
        let left: Vec<u64> = self.keys.keys().copied().filter(|tag| tag % 3 == rest).collect();
        for tag in left {
            let claimed = self.world.facts().fates[tag as usize].claimed_by;
            assert!(claimed.is_some(), "task {tag} stays although nobody runs it");
        }
    }

    pub(super) fn terminate(&mut self) {
        let now = self.now();
        self.pool.terminate(now, &mut self.world);
        self.no_more_starts = true;
        assert_eq!(self.pool.pending(), 0, "terminate ends everything at once");
        let unclaimed: usize = self.world.facts().workers.values().map(|w| w.unclaimed()).sum();
        assert_eq!(unclaimed, 0, "terminate leaves tasks in rings");
    }

    fn no_limit_is_missed(&self, now: Moment) {
        let mut facts = self.world.facts();
        let facts = &mut *facts;
        for (id, w) in &facts.workers {
            let Step::Running(key, tag) = w.step else { continue };
            let Some(since) = facts.seen_running(*id, key) else { continue };
            let fate = &facts.fates[tag as usize];
            let over = |limit: Option<Duration>| {
                limit.is_some_and(|l| now.0.saturating_sub(since.0) > l.as_nanos() as u64 + GRAIN + LATE)
            };
            if let Some(task) = self.pool.tasks.get(key) {
                assert!(!over(fate.limits.hard), "task {tag} at {id:?} is over its hard limit");
                assert!(
                    task.watch.as_ref().is_some_and(|watch| watch.interrupted) || !over(fate.limits.soft),
                    "task {tag} at {id:?} is over its soft limit"
                );
            }
        }
    }

    fn nothing_waits_beside_an_idle_worker(&self, now: Moment) {
        let pool = &self.pool;
        let idle = pool.roster.iter().any(|w| {
            w.state == WorkerState::Up && w.accepts() && w.handed.is_empty() && !w.suspect && !w.full
        });
        if !idle {
            return;
        }
        assert_eq!(pool.queued(), 0, "tasks are queued beside an idle worker");
        for (id, w) in &self.world.facts().workers {
            if w.unclaimed() == 0 {
                continue;
            }
            assert_eq!((w.unclaimed(), pool.load(*id)), (1, 1), "tasks lie at {id:?} beside an idle worker");
            let soon = pool.next_deadline().is_some_and(|at| at <= now.after(Duration::from_millis(10)));
            assert!(soon, "nobody looks after the task that lies at {id:?}");
        }
    }

    /// What must hold between the tables of the scheduler at any time.
    fn consistent(&mut self) {
        let pool = &self.pool;
        assert_eq!(pool.pending(), self.keys.len(), "the scheduler forgets nothing and keeps nothing");
        assert!(pool.queue.len() <= pool.pending());
        let handed: usize = pool.roster.iter().map(|w| w.handed.len()).sum();
        assert_eq!(pool.queue.len() + handed, pool.pending(), "every task is in one place");
        let staying = pool.roster.staying();
        assert!(staying <= pool.target(), "there are more workers than are wanted");
        if pool.phase() == Phase::Running && !pool.restart.holding() && !pool.restart.probing() {
            assert_eq!(staying, pool.target(), "workers are missing");
        }
        assert!(pool.tasks.capacity() <= self.most_pending.max(4), "the table grows without need");
        assert!(pool.roster.seats() <= self.most_workers, "seats are not used again");
        // The rest takes long where much is pending.
        if self.keys.len() > 16 && !self.rng.chance(500) {
            return;
        }
        let queue: BTreeSet<_> = pool.queue.iter().collect();
        assert_eq!(queue.len(), pool.queue.len(), "no task is queued twice");
        for (tag, key) in &self.keys {
            let task = pool.tasks.get(*key).expect("pending tasks are known");
            assert_eq!(task.tag, *tag);
            match task.place {
                Place::Queued => assert!(queue.contains(key) && task.body.is_some()),
                Place::At(id) => {
                    let w = pool.roster.get(id).expect("tasks are at workers that exist");
                    assert!(w.handed.contains(key) && task.body.is_none());
                }
            }
        }
    }

    /// Whether a process could have been left behind.
    pub(super) fn is_deserted(&self) -> bool {
        self.world.facts().workers.is_empty() && self.starts.is_empty() && self.births.is_empty()
    }

    pub(super) fn kill(&mut self, id: WorkerId) {
        self.world.die(id, ExitStatus::Signal(SIGKILL));
        self.listen();
    }
}
