//! Who gets what: handing out, taking back, sharing.

use std::time::Duration;

use super::roster::{WorkerId, WorkerState};
use super::tasks::{Place, TaskKey};
use super::{Channels, Scheduler};
use crate::sys::Moment;

/// How much run time may lie ahead of a worker, so that it need not wait for the parent between tasks.
const AHEAD_NS: u64 = 2_000_000;
/// Tasks at least this long make the worker's wait for its next one invisible: nothing is handed out ahead.
const LONG_NS: u64 = 5_000_000;
const MOST_AHEAD: u64 = 1024;
/// Read-ahead while nothing is known about the tasks.
const FIRST_AHEAD: usize = 4;
/// How long an idle worker may leave a task lying while another one is idle. It was stopped, or starved of its processor.
const DOUBT: Duration = Duration::from_millis(10);

impl<T: Clone, B> Scheduler<T, B> {
    fn read_ahead(&self) -> usize {
        match self.mean_run_ns {
            None => FIRST_AHEAD,
            Some(mean) if mean >= LONG_NS => 1,
            Some(mean) => (AHEAD_NS / mean.max(1)).clamp(2, MOST_AHEAD) as usize,
        }
    }

    pub(super) fn learn(&mut self, ran: Duration) {
        let ran = u64::try_from(ran.as_nanos()).unwrap_or(u64::MAX).min(60_000_000_000);
        self.mean_run_ns = Some(self.mean_run_ns.map_or(ran, |mean| (mean * 7 + ran) / 8));
    }

    /// Hands out the queue as far as there is room.
    pub(super) fn dispatch<C: Channels<Body = B>>(&mut self, now: Moment, channels: &mut C) {
        let ahead = self.read_ahead();
        while let Some(&key) = self.queue.front() {
            if !self.tasks.get(key).is_some_and(|t| t.place == Place::Queued) {
                self.queue.pop_front();
                continue;
            }
            let Some(id) = self.roster.pick(ahead) else {
                self.saturated = true;
                return;
            };
            if self.hand(id, key, now, channels) {
                self.queue.pop_front();
            }
        }
    }

    /// Puts one queued task into one worker's ring. False: the ring has no room.
    fn hand<C: Channels<Body = B>>(
        &mut self,
        id: WorkerId,
        key: TaskKey,
        now: Moment,
        channels: &mut C,
    ) -> bool {
        let Some(task) = self.tasks.get_mut(key) else { return true };
        let Some(body) = task.body.take() else { return true };
        let first_limit = task.limits.as_ref().and_then(|l| l.first());
        task.place = Place::At(id);
        if let Err(body) = channels.hand(id, key, body) {
            task.body = Some(body);
            task.place = Place::Queued;
            if let Some(w) = self.roster.get_mut(id) {
                w.full = true;
            }
            return false;
        }
        let Some(w) = self.roster.get_mut(id) else { return true };
        let was_idle = w.handed.is_empty();
        w.handed.push_back(key);
        if let Some(budget) = &mut w.budget {
            *budget -= 1;
        }
        if let Some(limit) = first_limit {
            let at = now.after(limit);
            w.check_at = Some(w.check_at.map_or(at, |old| old.min(at)));
        }
        if was_idle {
            w.handed_at = now;
            if self.doubt_at.is_none() && self.roster.idle().is_some() {
                self.doubt_at = Some(now.after(DOUBT));
            }
        }
        true
    }

    /// Takes back everything that the worker has not claimed, to the front of the queue and in order.
    pub(super) fn take_back<C: Channels<Body = B>>(&mut self, id: WorkerId, channels: &mut C) -> usize {
        self.take_back_some(id, usize::MAX, channels)
    }

    fn take_back_some<C: Channels<Body = B>>(
        &mut self,
        id: WorkerId,
        most: usize,
        channels: &mut C,
    ) -> usize {
        let mut taken = 0;
        while taken < most {
            let Some(w) = self.roster.get_mut(id) else { break };
            let Some(&key) = w.handed.back() else { break };
            let Some(body) = channels.recall(id, key) else { break };
            w.handed.pop_back();
            if let Some(budget) = &mut w.budget {
                *budget += 1;
            }
            if let Some(task) = self.tasks.get_mut(key) {
                task.body = Some(body);
                task.place = Place::Queued;
                self.queue.push_front(key);
            }
            taken += 1;
        }
        taken
    }

    /// While somebody is idle and others have tasks lying in their rings, moves half of the longest line over.
    pub(super) fn share<C: Channels<Body = B>>(&mut self, now: Moment, channels: &mut C) {
        while self.queue.is_empty() {
            let Some(idle) = self.roster.idle() else { return };
            let Some(rich) = self.roster.richest() else { return };
            let lying = self.roster.get(rich).map_or(0, |w| w.handed.len());
            if self.take_back_some(rich, lying.div_ceil(2), channels) == 0 {
                return;
            }
            while let Some(&key) = self.queue.front() {
                if !self.hand(idle, key, now, channels) {
                    break;
                }
                self.queue.pop_front();
                if self.roster.get(idle).is_none_or(|w| !w.accepts()) {
                    break;
                }
            }
            self.dispatch(now, channels);
        }
    }

    /// Looks after tasks that lie unclaimed at workers that were thought idle, while others could run them.
    pub(super) fn doubt<C: Channels<Body = B>>(&mut self, now: Moment, channels: &mut C) {
        self.doubt_at = None;
        let lying: Vec<_> = self
            .roster
            .iter()
            .filter(|w| {
                matches!(w.state, WorkerState::Up | WorkerState::Starting)
                    && !w.handed.is_empty()
                    && channels.running(w.id).is_none()
            })
            .map(|w| (w.id, w.handed_at.after(DOUBT)))
            .collect();
        for (id, due) in lying {
            if self.roster.idle().is_none() {
                return;
            }
            if due > now {
                self.doubt_at = Some(self.doubt_at.map_or(due, |at| at.min(due)));
            } else if self.take_back(id, channels) > 0 {
                if let Some(w) = self.roster.get_mut(id) {
                    w.suspect = true;
                }
                self.dispatch(now, channels);
            }
        }
    }
}
