//! A model of what the scheduler cannot see but must cope with: worker processes with rings, that claim, run, publish, crash,
//! stop and leave whenever they like, also in the middle of a call of the scheduler.
//!
//! The model keeps the truth about every task, and panics at the step at which a promise is broken.

use std::cell::{RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};

use crate::pool::scheduler::{Channels, EX_RECYCLE, TaskKey, WorkerId};
use crate::sys::{ExitStatus, Moment};

pub(super) const SIGTERM: i32 = 15;
pub(super) const SIGKILL: i32 = 9;
pub(super) const SIGSEGV: i32 = 11;

/// splitmix64: small, seedable, good enough.
#[derive(Debug, Clone)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.next() % n }
    }

    /// Whether something of this many in ten thousand happens.
    pub(super) fn chance(&mut self, per_myriad: u64) -> bool {
        self.below(10_000) < per_myriad
    }

    /// Spread over magnitudes: most are small, some near `most`.
    pub(super) fn skewed(&mut self, most: u64) -> u64 {
        let bits = 64 - most.leading_zeros() as u64;
        let shift = self.below(bits + 1);
        self.below((most >> shift).max(1))
    }
}

/// How unkind the world is; chances per ten thousand steps.
#[derive(Debug, Clone, Default)]
pub(super) struct Chaos {
    pub(super) crash: u64,
    /// Workers that end while they start.
    pub(super) stillborn: u64,
    /// Leaves after a result, as one over its memory limit does.
    pub(super) bloat: u64,
    /// That a worker moves while the scheduler looks at it.
    pub(super) nudge: u64,
    /// That a worker ignores what asks it to terminate.
    pub(super) stubborn: u64,
    /// Greatest run time, nanoseconds.
    pub(super) longest_run: u64,
    /// Greatest time from birth to the first look at the ring.
    pub(super) longest_start: u64,
}

/// What a worker tells its parent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mail {
    Up,
    Result { key: TaskKey, tag: u64, ran: u64, last: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Unborn,
    Starting,
    Looking,
    /// Claimed, but not yet on the status page.
    Claimed(TaskKey, u64),
    Running(TaskKey, u64),
    /// The result can be read; the status page still names the task.
    Published(bool),
    Leaving(i32),
    Dead(ExitStatus),
}

#[derive(Debug)]
struct Slot {
    key: TaskKey,
    /// Taken out by a recall; takes room until the worker passes it.
    body: Option<u64>,
}

#[derive(Debug)]
struct Signal {
    at: u64,
    number: i32,
    /// What it may hit, if that matters.
    meant: Option<Option<u64>>,
}

#[derive(Debug)]
pub(super) struct Process {
    ring: VecDeque<Slot>,
    pub(super) step: Step,
    /// When it takes its next step; `None`: asleep.
    wakes: Option<u64>,
    pub(super) mail: VecDeque<Mail>,
    /// The status page.
    running: Option<(TaskKey, Moment)>,
    claims: u32,
    /// What it has claimed and not published; kept in death.
    claim: Option<u64>,
    pub(super) stopped: bool,
    told_to_leave: bool,
    stubborn: bool,
    signals: Vec<Signal>,
    /// The task that the last job-ending signal was for, once there is one.
    pub(super) condemned: Option<Option<u64>>,
    /// May claim nothing any more.
    barred: bool,
}

impl Process {
    pub(super) fn unclaimed(&self) -> usize {
        self.ring.iter().filter(|s| s.body.is_some()).count()
    }

    pub(super) fn is_dead(&self) -> bool {
        matches!(self.step, Step::Dead(_))
    }

    pub(super) const fn has_claim(&self) -> Option<u64> {
        self.claim
    }
}

/// The truth about a task.
#[derive(Debug, Default, Clone)]
pub(super) struct Fate {
    pub(super) claimed_by: Option<WorkerId>,
    pub(super) published: bool,
    pub(super) ended: Option<&'static str>,
    pub(super) interrupted: bool,
    pub(super) limits: crate::pool::scheduler::Limits,
}

#[derive(Debug)]
pub(super) struct Facts {
    pub(super) rng: Rng,
    pub(super) clock: u64,
    pub(super) chaos: Chaos,
    capacity: usize,
    budget: Option<u32>,
    pub(super) workers: BTreeMap<WorkerId, Process>,
    pub(super) fates: Vec<Fate>,
    /// The answers of `running` since the last tick began, per worker.
    pub(super) answers: BTreeMap<WorkerId, Vec<Option<(TaskKey, Moment)>>>,
    /// Guards against loops that never end.
    pub(super) calls: u64,
}

#[derive(Debug)]
pub(super) struct World(RefCell<Facts>);

impl World {
    pub(super) fn new(seed: u64, capacity: usize, budget: Option<u32>, chaos: Chaos) -> Self {
        Self(RefCell::new(Facts {
            rng: Rng(seed),
            clock: 1_000_000_000,
            chaos,
            capacity,
            budget,
            workers: BTreeMap::new(),
            fates: Vec::new(),
            answers: BTreeMap::new(),
            calls: 0,
        }))
    }

    pub(super) fn facts(&self) -> RefMut<'_, Facts> {
        self.0.borrow_mut()
    }
}

impl Channels for World {
    type Body = u64;

    fn hand(&mut self, worker: WorkerId, task: TaskKey, body: u64) -> Result<(), u64> {
        let mut facts = self.facts();
        facts.nudge(worker);
        let (clock, delay, capacity) = (facts.clock, facts.rng.skewed(5_000), facts.capacity);
        let w = facts.workers.get_mut(&worker).expect("only living workers are handed tasks");
        assert!(!w.barred, "{worker:?} was told to terminate and is handed task {body}");
        if w.ring.len() >= capacity {
            return Err(body);
        }
        w.ring.push_back(Slot { key: task, body: Some(body) });
        if w.step == Step::Looking {
            w.wakes.get_or_insert(clock + delay);
        }
        facts.nudge(worker);
        Ok(())
    }

    fn recall(&mut self, worker: WorkerId, task: TaskKey) -> Option<u64> {
        let mut facts = self.facts();
        facts.nudge(worker);
        let w = facts.workers.get_mut(&worker).expect("rings outlive their workers until these are gone");
        let body = w.ring.iter_mut().find(|s| s.key == task && s.body.is_some()).and_then(|s| s.body.take());
        facts.nudge(worker);
        body
    }

    fn running(&self, worker: WorkerId) -> Option<(TaskKey, Moment)> {
        let mut facts = self.facts();
        facts.nudge(worker);
        let answer = facts.workers.get(&worker)?.running;
        facts.answers.entry(worker).or_default().push(answer);
        facts.nudge(worker);
        answer
    }
}

impl Facts {
    /// The ring exists; the process does not yet.
    pub(super) fn seat(&mut self, id: WorkerId) {
        let stubborn = self.chaos.stubborn;
        let process = Process {
            ring: VecDeque::new(),
            step: Step::Unborn,
            wakes: None,
            mail: VecDeque::new(),
            running: None,
            claims: 0,
            claim: None,
            stopped: false,
            told_to_leave: false,
            stubborn: self.rng.chance(stubborn),
            signals: Vec::new(),
            condemned: None,
            barred: false,
        };
        assert!(self.workers.insert(id, process).is_none(), "{id:?} is started twice");
    }

    pub(super) fn fork(&mut self, id: WorkerId) {
        let wakes = self.clock + self.rng.skewed(self.chaos.longest_start);
        let w = self.worker(id);
        w.step = Step::Starting;
        w.wakes = Some(wakes);
    }

    pub(super) fn worker(&mut self, id: WorkerId) -> &mut Process {
        self.workers.get_mut(&id).expect("the worker is known")
    }

    /// The earliest moment at which a worker does something by itself.
    pub(super) fn next_event(&self) -> Option<u64> {
        let one = |w: &Process| {
            let signal = w.signals.iter().map(|s| s.at).min();
            let wakes = w.wakes.filter(|_| !w.stopped);
            [signal, wakes].into_iter().flatten().min()
        };
        self.workers.values().filter(|w| !w.is_dead()).filter_map(one).min()
    }

    /// Lets everybody do what is due by now.
    pub(super) fn run_due(&mut self) {
        let ids: Vec<_> = self.workers.keys().copied().collect();
        for id in ids {
            self.deliver_signals(id);
            for _ in 0..8 {
                let clock = self.clock;
                let w = self.worker(id);
                if w.stopped || w.is_dead() || w.wakes.is_none_or(|at| at > clock) {
                    break;
                }
                self.step(id);
            }
        }
    }

    /// Sometimes a worker moves between two looks of the scheduler.
    fn nudge(&mut self, id: WorkerId) {
        self.calls += 1;
        assert!(self.calls < 200_000, "the scheduler does not come back");
        let chance = self.chaos.nudge;
        if chance == 0 || !self.rng.chance(chance) {
            return;
        }
        for _ in 0..=self.rng.below(5) {
            self.clock += 1 + self.rng.skewed(200);
            let Some(w) = self.workers.get(&id) else { return };
            if !w.stopped && !w.is_dead() && w.wakes.is_some() {
                self.step(id);
            }
        }
    }

    pub(super) fn signal(&mut self, id: WorkerId, delay: u64, number: i32) {
        let at = self.clock + delay;
        self.worker(id).signals.push(Signal { at, number, meant: None });
    }

    pub(super) fn end_job(&mut self, id: WorkerId, delay: u64, meant: Option<u64>) {
        let at = self.clock + delay;
        self.worker(id).signals.push(Signal { at, number: SIGKILL, meant: Some(meant) });
    }

    fn deliver_signals(&mut self, id: WorkerId) {
        let clock = self.clock;
        let w = self.worker(id);
        if w.is_dead() {
            return;
        }
        let due = |s: &Signal, stopped: bool| s.at <= clock && (s.number == SIGKILL || !stopped);
        while let Some(at) = w.signals.iter().position(|s| due(s, w.stopped)) {
            let Signal { number, meant, .. } = w.signals.remove(at);
            if number == SIGTERM && w.stubborn {
                continue;
            }
            if let Some(meant) = meant {
                let hit = w.has_claim();
                assert!(hit.is_none() || hit == meant, "{id:?}: a signal for {meant:?} hits {hit:?}");
            }
            w.step = Step::Dead(ExitStatus::Signal(number));
            return;
        }
        // Signals wait for a stopped process to go on; until then they are no events.
        if w.stopped {
            for s in &mut w.signals {
                s.at = s.at.max(clock + 1_000_000);
            }
        }
    }

    /// One atomic step of a worker.
    fn step(&mut self, id: WorkerId) {
        let (crash, stillborn, bloat) = (self.chaos.crash, self.chaos.stillborn, self.chaos.bloat);
        let clock = self.clock;
        if self.rng.chance(crash) {
            self.worker(id).step = Step::Dead(ExitStatus::Signal(SIGSEGV));
            return;
        }
        let mut pause = self.rng.skewed(3_000);
        if self.rng.chance(20) {
            pause = self.rng.skewed(15_000_000);
        }
        let mut wakes = Some(clock + pause);
        let w = self.workers.get_mut(&id).expect("the worker is known");
        let next = match w.step {
            Step::Unborn | Step::Dead(_) => return,
            Step::Starting if self.rng.chance(stillborn) => Step::Dead(ExitStatus::Code(1)),
            Step::Starting => {
                w.mail.push_back(Mail::Up);
                Step::Looking
            }
            Step::Looking => {
                while w.ring.front().is_some_and(|s| s.body.is_none()) {
                    w.ring.pop_front();
                }
                if let Some((key, tag)) = w.ring.pop_front().and_then(|s| Some((s.key, s.body?))) {
                    w.claims += 1;
                    w.claim = Some(tag);
                    assert!(!w.barred, "{id:?} was told to terminate and claims task {tag}");
                    let fate = &mut self.fates[tag as usize];
                    assert_eq!(fate.claimed_by.replace(id), None, "task {tag} is claimed twice");
                    assert_eq!(fate.ended, None, "task {tag} is claimed by {id:?} after its end");
                    assert!(self.budget.is_none_or(|b| w.claims <= b), "{id:?} is over its budget");
                    Step::Claimed(key, tag)
                } else if w.told_to_leave {
                    Step::Leaving(0)
                } else {
                    wakes = None;
                    Step::Looking
                }
            }
            Step::Claimed(key, tag) => {
                w.running = Some((key, Moment(clock)));
                wakes = Some(clock + self.rng.skewed(self.chaos.longest_run));
                Step::Running(key, tag)
            }
            Step::Running(key, tag) => {
                let since = w.running.map_or(clock, |(_, since)| since.0);
                let last = self.budget == Some(w.claims) || self.rng.chance(bloat);
                w.mail.push_back(Mail::Result { key, tag, ran: clock - since, last });
                w.claim = None;
                self.fates[tag as usize].published = true;
                Step::Published(last)
            }
            Step::Published(last) => {
                w.running = None;
                if last { Step::Leaving(EX_RECYCLE) } else { Step::Looking }
            }
            Step::Leaving(code) => Step::Dead(ExitStatus::Code(code)),
        };
        w.step = next;
        w.wakes = wakes;
    }

    /// The parent asks for a regular end.
    pub(super) fn retire(&mut self, id: WorkerId) {
        let at = self.clock + self.rng.skewed(50_000);
        let w = self.worker(id);
        w.told_to_leave = true;
        if w.step == Step::Looking {
            w.wakes.get_or_insert(at);
        }
    }

    /// A soft limit's signal arrives: the worker's handler looks for whom it is.
    pub(super) fn interrupt(&mut self, id: WorkerId, key: TaskKey) {
        let (heeds, soon) = (self.rng.chance(5_000), self.clock + self.rng.skewed(100_000));
        if let Some(w) = self.workers.get_mut(&id)
            && let Step::Running(current, _) = w.step
            && current == key
            && heeds
        {
            w.wakes = Some(soon);
        }
    }

    /// From here on nothing more may lie in this worker's ring, and it may claim nothing.
    pub(super) fn bar(&mut self, id: WorkerId) {
        let w = self.worker(id);
        assert_eq!(w.unclaimed(), 0, "{id:?} is told to terminate with unclaimed tasks in its ring");
        w.barred = true;
    }
}

impl Facts {
    /// Since when this worker, as the scheduler saw it, has been running the task.
    pub(super) fn seen_running(&self, id: WorkerId, key: TaskKey) -> Option<Moment> {
        self.answers.get(&id)?.iter().flatten().find(|(k, _)| *k == key).map(|(_, since)| *since)
    }

    pub(super) fn last_seen(&self, id: WorkerId) -> Option<TaskKey> {
        self.answers.get(&id)?.last().copied().flatten().map(|(key, _)| key)
    }
}

/// Single steps, for tests that tell a story.
impl World {
    /// Makes the worker's process and lets it come up.
    pub(super) fn raise(&mut self, id: WorkerId) {
        self.facts().seat(id);
        self.facts().fork(id);
        self.step(id);
    }

    pub(super) fn step(&mut self, id: WorkerId) {
        self.facts().clock += 1;
        self.facts().step(id);
    }

    /// The worker claims its next task and begins it. Answers which.
    pub(super) fn begin(&mut self, id: WorkerId) -> Option<u64> {
        if self.facts().worker(id).step == Step::Looking {
            self.step(id);
        }
        let claim = self.facts().worker(id).has_claim();
        if claim.is_some() {
            self.step(id);
        }
        claim
    }

    /// The worker publishes the result of what it runs and clears its status page.
    pub(super) fn finish(&mut self, id: WorkerId) {
        assert!(matches!(self.facts().worker(id).step, Step::Running(..)), "{id:?} runs something");
        self.step(id);
        self.step(id);
    }

    pub(super) fn die(&mut self, id: WorkerId, status: ExitStatus) {
        self.facts().worker(id).step = Step::Dead(status);
    }
}
