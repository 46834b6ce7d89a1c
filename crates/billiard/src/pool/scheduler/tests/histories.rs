//! Long random lives of pools. A history is told by its seed alone; the seed is printed when a promise is broken, and
//! `replay` tells it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::driver::Driver;
use super::world::{Chaos, Rng, Step};
use crate::pool::scheduler::{Config, Limits, Phase, RestartPolicy, WorkerId, WorkerState};

/// A history to look at, as the failure names it: `cargo test -p billiard --lib replay -- --ignored`.
const REPLAY: (u64, u64) = (0, 12);

/// Above this the checks of every step take too long.
const MOST_PENDING: usize = 100;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

/// What the story is about, drawn from its seed.
struct Plot {
    rng: Rng,
    driver: Driver,
    longest_gap: u64,
    most_limit: u64,
    batch: u64,
    stops: bool,
    signals: bool,
    staffing: bool,
}

impl Plot {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0xb111_a4d5);
        let some = |rng: &mut Rng, most: u64| if rng.chance(4_000) { 0 } else { rng.skewed(most) };
        let chaos = Chaos {
            crash: some(&mut rng, 400),
            stillborn: if rng.chance(7_000) { 0 } else { rng.skewed(5_000) },
            bloat: some(&mut rng, 500),
            nudge: some(&mut rng, 6_000),
            stubborn: some(&mut rng, 10_000),
            longest_run: [10_000, 500_000, 5 * MS, 50 * MS, 2 * SECOND][rng.below(5) as usize],
            longest_start: [100_000, 50 * MS][rng.below(2) as usize],
        };
        let policy = RestartPolicy {
            max_restarts: rng.chance(2_000).then(|| rng.below(20) as u32),
            window: Duration::from_millis(1 + rng.below(1_000)),
            ..RestartPolicy::default()
        };
        let config = Config {
            workers: 1 + rng.below(5) as u32,
            tasks_per_worker: rng.chance(4_000).then(|| 1 + rng.skewed(20) as u32),
            restart: policy,
        };
        let capacity = 1 + rng.skewed(64) as usize;
        let mut driver = Driver::new(rng.next(), config, capacity, chaos);
        driver.unforkable = if rng.chance(8_000) { 0 } else { rng.skewed(5_000) };
        Self {
            longest_gap: [10_000, MS, 30 * MS][rng.below(3) as usize],
            most_limit: [MS, 20 * MS, SECOND][rng.below(3) as usize],
            batch: 1 + rng.skewed(40),
            stops: rng.chance(5_000),
            signals: rng.chance(4_000),
            staffing: rng.chance(6_000),
            rng,
            driver,
        }
    }

    /// Lets the world run until `until`, or until nothing happens any more.
    fn run_until(&mut self, until: u64) {
        while let Some(at) = self.driver.next_event().filter(|at| *at <= until) {
            self.driver.advance(at);
        }
        self.driver.advance(until);
    }

    /// Lets the world run until `done`, which must come about.
    fn run_while(&mut self, what: &str, mut go_on: impl FnMut(&Driver) -> bool) {
        let end = self.driver.clock() + 600 * SECOND;
        while go_on(&self.driver) {
            let at = self.driver.next_event();
            let at =
                at.unwrap_or_else(|| panic!("everybody sleeps, waiting for {what}: {:#?}", self.driver.pool));
            assert!(at < end, "still waiting for {what}: {:#?}", self.driver.pool);
            self.driver.advance(at);
        }
    }

    fn limits(&mut self) -> Limits {
        let mut one = |chance| {
            self.rng.chance(chance).then(|| Duration::from_nanos(1_000 + self.rng.skewed(self.most_limit)))
        };
        Limits { soft: one(2_000), hard: one(2_500) }
    }

    fn somebody(&mut self) -> Option<WorkerId> {
        let facts = self.driver.world.facts();
        let ids: Vec<_> = facts
            .workers
            .iter()
            .filter(|(_, w)| w.step != Step::Unborn && !w.is_dead())
            .map(|(id, _)| *id)
            .collect();
        (!ids.is_empty()).then(|| ids[self.rng.below(ids.len() as u64) as usize])
    }

    /// One thing that the owner of the pool, or somebody else on the machine, does.
    fn meddle(&mut self) {
        let now = self.driver.now();
        let running = self.driver.pool.phase() == Phase::Running;
        match self.rng.below(100) {
            0..60 if running && self.driver.pool.pending() < MOST_PENDING => {
                for _ in 0..=self.rng.below(self.batch) {
                    let limits = self.limits();
                    self.driver.submit(limits);
                }
            }
            60..64 if self.staffing && self.driver.pool.target() < 8 => {
                self.driver.pool.grow(1 + self.rng.below(2) as u32)
            }
            64..68 if self.staffing && running => self.shrink(),
            68..70 if self.staffing && running => self.driver.pool.renew(now, &mut self.driver.world),
            70..80 if self.stops => {
                if let Some(id) = self.somebody() {
                    self.driver.world.facts().worker(id).stopped = true;
                }
            }
            80..90 => self.resume_some(),
            90..96 if self.signals => {
                if let Some(id) = self.somebody().filter(|id| self.driver.pool.state(*id).is_some()) {
                    let deadly = self.rng.chance(7_000);
                    self.driver.end_job(id, deadly);
                }
            }
            96 if self.signals => {
                if let Some(id) = self.somebody() {
                    self.driver.kill(id);
                }
            }
            97 => self.driver.withdraw(),
            _ => {}
        }
        self.driver.settle();
    }

    fn shrink(&mut self) {
        let target = self.driver.pool.target();
        let n = 1 + self.rng.below(3) as u32;
        if n >= target {
            return;
        }
        let before = self.driver.pool.roster.staying();
        match self.driver.pool.shrink(n, &mut self.driver.world) {
            Some(who) => {
                assert_eq!(who.len(), n as usize);
                assert_eq!(self.driver.pool.target(), target - n);
                for id in who {
                    assert_eq!(self.driver.pool.load(id), 0, "a busy worker is sent home");
                    assert_eq!(self.driver.pool.state(id), Some(WorkerState::Leaving));
                }
            }
            None => {
                assert_eq!(self.driver.pool.target(), target);
                assert_eq!(
                    self.driver.pool.roster.staying(),
                    before,
                    "a shrink that is refused changes nothing"
                );
            }
        }
    }

    fn resume_some(&mut self) {
        for w in self.driver.world.facts().workers.values_mut() {
            w.stopped = false;
        }
    }

    /// From here on nothing goes wrong any more. Stopped workers go on, die, or stay stopped as long as others can do
    /// their work.
    fn calm(&mut self) {
        {
            let chaos = &mut self.driver.world.facts().chaos;
            (chaos.crash, chaos.stillborn, chaos.bloat) = (0, 0, 0);
        }
        self.driver.unforkable = 0;
        let staying_stopped = self.rng.chance(3_000);
        let killed = self.rng.chance(5_000);
        let awake = {
            let facts = self.driver.world.facts();
            facts.workers.iter().any(|(id, w)| {
                !w.stopped && !w.is_dead() && self.driver.pool.state(*id) == Some(WorkerState::Up)
            })
        };
        let stopped: Vec<_> = {
            let facts = self.driver.world.facts();
            facts.workers.iter().filter(|(_, w)| w.stopped && !w.is_dead()).map(|(id, _)| *id).collect()
        };
        for id in stopped {
            let idle = self.driver.world.facts().worker(id).step == Step::Looking;
            if staying_stopped && awake && idle {
                continue;
            }
            if killed {
                self.driver.kill(id);
            } else {
                self.driver.world.facts().worker(id).stopped = false;
            }
        }
    }

    /// A pool that has nothing to do is complete and sleeps.
    fn quiet(&mut self) {
        // A worker that stays stopped holds back nothing but itself.
        self.run_while("pending tasks", |d| d.pool.pending() > 0);
        self.resume_some();
        self.run_while("sleep", |d| {
            d.pool.next_deadline().is_some() || d.pool.roster.iter().any(|w| w.state != WorkerState::Up)
        });
        if self.driver.pool.phase() == Phase::Running {
            assert_eq!(
                self.driver.pool.roster.staying(),
                self.driver.pool.target(),
                "a quiet pool is complete"
            );
        }
    }

    /// What comes out of a stream is accepted by a draining pool, which waits for its end.
    fn finish_stream(&mut self) {
        for _ in 0..self.rng.below(20) {
            let at = self.driver.clock() + self.rng.skewed(self.longest_gap);
            self.run_until(at);
            if self.driver.pool.phase() == Phase::Draining {
                assert!(!self.driver.pool.is_over(), "the stream goes on");
                let limits = self.limits();
                self.driver.submit(limits);
                self.driver.settle();
            }
        }
        self.driver.pool.close_stream();
        self.driver.settle();
    }

    fn tell(&mut self, events: u64) {
        let surprise = if self.rng.chance(2_000) { self.rng.below(events) } else { u64::MAX };
        for event in 0..events {
            let at = self.driver.clock() + self.rng.skewed(self.longest_gap);
            self.run_until(at);
            self.meddle();
            if event == surprise || self.driver.pool.phase() == Phase::Broken {
                break;
            }
        }
        if surprise == u64::MAX {
            self.calm();
            if self.rng.chance(5_000) && self.driver.pool.phase() == Phase::Running {
                self.quiet();
            }
            // A draining pool makes no more workers than it has tasks; the only one must not be a stopped one.
            self.resume_some();
            let streaming = self.rng.chance(2_000);
            if streaming {
                self.driver.pool.open_stream();
            }
            self.driver.pool.close();
            self.driver.settle();
            if streaming {
                self.finish_stream();
            }
        } else {
            self.driver.terminate();
            self.driver.settle();
        }
        self.run_while("the end", |d| !d.pool.is_over());
        self.run_while("the last process", |d| !d.is_deserted());
        for (tag, fate) in self.driver.world.facts().fates.iter().enumerate() {
            assert!(fate.ended.is_some(), "task {tag} never ended");
        }
    }
}

pub(super) fn history(seed: u64, events: u64) {
    let told = catch_unwind(AssertUnwindSafe(|| Plot::new(seed).tell(events)));
    if let Err(broken) = told {
        let text = broken.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| broken.downcast_ref::<&str>().copied()).unwrap_or("panic");
        panic!("history {seed} of {events} events: {text}");
    }
}

#[test]
fn short_histories_keep_every_promise() {
    for seed in 0..3_000 {
        history(seed, 12);
    }
}

#[test]
fn middling_histories_keep_every_promise() {
    for seed in 1_000_000..1_000_200 {
        history(seed, 150);
    }
}

#[test]
fn long_histories_keep_every_promise() {
    for seed in 2_000_000..2_000_008 {
        history(seed, 3_000);
    }
}

#[test]
#[ignore = "takes minutes"]
fn very_many_histories_keep_every_promise() {
    for seed in 10_000_000..10_200_000 {
        history(seed, 30);
    }
    for seed in 20_000_000..20_020_000 {
        history(seed, 200);
    }
    for seed in 30_000_000..30_000_300 {
        history(seed, 5_000);
    }
}

#[test]
#[ignore = "for looking at one history"]
fn replay() {
    history(REPLAY.0, REPLAY.1);
}
