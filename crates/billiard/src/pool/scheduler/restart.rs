//! When dead workers are replaced at once, later, or no more.

use std::time::Duration;

use crate::sys::Moment;

/// What the owner of the pool asked for.
#[derive(Clone, Debug)]
pub struct RestartPolicy {
    /// So many workers that never finished a task may be lost per window; `None`: as many as there are.
    pub max_restarts: Option<u32>,
    /// The window.
    pub window: Duration,
    /// How often a start that fails is tried again, ever later, before the pool is given up.
    pub retries: u32,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { max_restarts: None, window: Duration::from_secs(1), retries: 5 }
    }
}

/// Wait before the first retry; doubles with each.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// How often it doubles.
const DOUBLINGS: u32 = 5;

#[derive(Debug)]
pub(super) struct Restarts {
    policy: RestartPolicy,
    window_start: Option<Moment>,
    window_count: u32,
    /// Rounds of failed starts since one came up.
    failures: u32,
    /// No start before this.
    hold: Option<Moment>,
    exhausted: bool,
}

impl Restarts {
    pub(super) const fn new(policy: RestartPolicy) -> Self {
        Self { policy, window_start: None, window_count: 0, failures: 0, hold: None, exhausted: false }
    }

    /// A worker died before it could take a task. Those that fail together count as one. While others work, failing starts
    /// are no reason to give the pool up.
    pub(super) fn failed_start(&mut self, now: Moment, others_work: bool) {
        if self.hold.is_some() {
            return;
        }
        if self.failures >= self.policy.retries && !others_work {
            self.exhausted = true;
            return;
        }
        self.hold = Some(now.after(FIRST_BACKOFF * (1 << self.failures.min(DOUBLINGS))));
        self.failures = self.failures.saturating_add(1);
    }

    /// A worker that had never finished a task died without our doing.
    pub(super) fn unproven_loss(&mut self, now: Moment) {
        let Some(most) = self.policy.max_restarts.filter(|n| *n > 0) else { return };
        if self.window_start.is_none_or(|start| now.since(start) >= self.policy.window) {
            self.window_start = Some(now);
            self.window_count = 0;
        }
        if self.window_count >= most {
            self.exhausted = true;
        }
        self.window_count += 1;
    }

    pub(super) const fn came_up(&mut self) {
        self.failures = 0;
        self.hold = None;
    }

    /// Nobody is started any more.
    pub(super) const fn stop(&mut self) {
        self.hold = None;
    }

    pub(super) const fn proven(&mut self) {
        self.window_count = 0;
    }

    pub(super) const fn exhausted(&self) -> bool {
        self.exhausted
    }

    pub(super) const fn holding(&self) -> bool {
        self.hold.is_some()
    }

    /// While starts fail, only one is tried at a time.
    pub(super) const fn probing(&self) -> bool {
        self.failures > 0
    }

    pub(super) const fn resume_at(&self) -> Option<Moment> {
        self.hold
    }

    /// Whether the back-off is over now.
    pub(super) fn resume(&mut self, now: Moment) -> bool {
        let over = self.hold.is_some_and(|at| at <= now);
        if over {
            self.hold = None;
        }
        over
    }
}
