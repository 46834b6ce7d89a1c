//! Who gets what: handing out, taking back, sharing.

use std::collections::VecDeque;
use std::time::Duration;

use super::roster::{WorkerId, WorkerState};
use super::tasks::{Place, TaskKey};
use super::{Channels, Scheduler};
use crate::sys::Moment;

/// How much run time may lie ahead of a worker, so that it need not wait for the parent between tasks.
const AHEAD_NS: u64 = 2_000_000;
/// Tasks at least this long make the worker's wait for its next one invisible: nothing is handed out ahead.
const LONG_NS: u64 = 50_000_000;
const MOST_AHEAD: u64 = 1024;
/// Read-ahead while nothing is known about the tasks.
const FIRST_AHEAD: usize = 4;
/// How long an idle worker may leave a task lying while another one is idle. It was stopped, or starved of its processor.
const DOUBT: Duration = Duration::from_millis(10);
/// The same while all others are busy: the task would only wait elsewhere.
const PATIENCE: Duration = Duration::from_millis(250);
/// After this an empty worker whose ring had no room is tried again: what was recalled takes room until the worker passes it.
const RETRY: Duration = Duration::from_millis(1);
/// Above this many entries, the queue's memory is given back once it is empty.
const FLOOD: usize = 65_536;

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
        self.saturated = false;
        while let Some(&key) = self.queue.front() {
            if !self.tasks.get(key).is_some_and(|t| t.place == Place::Queued) {
                self.queue.pop_front();
                continue;
            }
            let Some(id) = self.roster.pick(ahead) else {
                self.saturated = true;
                if self.doubt_at.is_none() && self.roster.iter().nth(1).is_some() {
                    self.doubt_by(now.after(PATIENCE));
                }
                return;
            };
            if self.hand(id, key, now, channels) {
                self.queue.pop_front();
            }
        }
        if self.queue.capacity() > FLOOD {
            self.queue = VecDeque::new();
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
        let first_limit = task.limits().first();
        task.place = Place::At(id);
        if let Err(body) = channels.hand(id, key, body) {
            task.body = Some(body);
            task.place = Place::Queued;
            if let Some(w) = self.roster.get_mut(id) {
                w.full = true;
                if w.handed.is_empty() {
                    w.rest(now, RETRY);
                }
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
            w.lying = Some((key, now));
            let due = now.after(DOUBT);
            if self.doubt_at.is_none_or(|at| at > due) && self.roster.idle().is_some() {
                self.doubt_at = Some(due);
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
            w.full &= !w.handed.is_empty();
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

    /// Takes the tasks out that `wanted` names and no worker has claimed: they never run. Answers whose they were.
    pub fn withdraw<C: Channels<Body = B>>(
        &mut self,
        wanted: impl Fn(&T) -> bool,
        now: Moment,
        channels: &mut C,
    ) -> Vec<T> {
        let mut tags = Vec::new();
        for key in self.tasks.keys(wanted) {
            let Some(task) = self.tasks.get(key) else { continue };
            if let Place::At(id) = task.place {
                if channels.recall(id, key).is_none() {
                    continue;
                }
                if let Some(w) = self.roster.get_mut(id) {
                    w.forget(key);
                    if let Some(budget) = &mut w.budget {
                        *budget += 1;
                    }
                }
            }
            tags.extend(self.tasks.remove(key).map(|task| task.tag));
        }
        self.queue.retain(|key| self.tasks.get(*key).is_some());
        self.saturated = false;
        self.settle(now, channels);
        tags
    }

    /// While somebody is idle and others have tasks lying in their rings, moves half of the longest line over.
    pub(super) fn share<C: Channels<Body = B>>(&mut self, now: Moment, channels: &mut C) {
        // Of several tasks of a worker all may be claimed: those whose results are on the way, and the running one.
        let mut poor = Vec::new();
        while self.queue.is_empty() {
            let Some(idle) = self.roster.idle() else { return };
            let Some(rich) = self.roster.richest(&poor) else {
                // What is left elsewhere is claimed, or a single task at a worker that should be about to claim it.
                self.doubt(now, channels);
                return;
            };
            let lying = self.roster.get(rich).map_or(0, |w| w.handed.len());
            let most = if self.roster.get(idle).is_some_and(|w| w.suspect) { 1 } else { lying.div_ceil(2) };
            if self.take_back_some(rich, most, channels) == 0 {
                poor.push(rich);
                continue;
            }
            while let Some(&key) = self.queue.front() {
                if !self.hand(idle, key, now, channels) {
                    break;
                }
                self.queue.pop_front();
                if self.roster.get(idle).is_none_or(|w| w.suspect || !w.accepts()) {
                    break;
                }
            }
            self.dispatch(now, channels);
        }
    }

    /// Workers that have tasks and run none of them, and since when that has been seen.
    fn lying<C: Channels<Body = B>>(&mut self, now: Moment, channels: &C) -> Vec<(WorkerId, Moment)> {
        let mut lying = Vec::new();
        for w in self.roster.iter_mut() {
            let Some(&first) = w.handed.front() else { continue };
            if !matches!(w.state, WorkerState::Up | WorkerState::Starting) {
                continue;
            }
            let runs = channels.running(w.id).is_some_and(|(key, _)| {
                // The status page of a worker that was stopped after a task still names it.
                self.tasks.get(key).is_some_and(|task| task.place == Place::At(w.id))
            });
            if runs {
                w.lying = None;
                continue;
            }
            let since = w.lying.filter(|(key, _)| *key == first).map_or(now, |(_, since)| since);
            w.lying = Some((first, since));
            lying.push((w.id, since));
        }
        lying
    }

    fn doubt_by(&mut self, at: Moment) {
        self.doubt_at = Some(self.doubt_at.map_or(at, |old| old.min(at)));
    }

    /// Looks after tasks that lie unclaimed at workers that run nothing, while others could run them.
    pub(super) fn doubt<C: Channels<Body = B>>(&mut self, now: Moment, channels: &mut C) {
        self.doubt_at = None;
        for (id, since) in self.lying(now, channels) {
            let patience = if self.roster.idle().is_some() {
                DOUBT
            } else if self.roster.iter().any(|w| w.id != id && w.state == WorkerState::Up && !w.suspect) {
                PATIENCE
            } else {
                continue;
            };
            let due = since.after(patience);
            if due > now {
                self.doubt_by(due);
            } else if self.take_back(id, channels) > 0 {
                if let Some(w) = self.roster.get_mut(id) {
                    w.suspect = true;
                    w.rest(now, DOUBT);
                }
                self.dispatch(now, channels);
            }
            // What could not be taken back was claimed in this very moment.
        }
    }
}
