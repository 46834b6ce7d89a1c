//! Who is employed: starting, replacing, growing, shrinking, and the ways in which a pool ends.

use super::roster::{Worker, WorkerId, WorkerState};
use super::{Action, Channels, EX_RECYCLE, Failure, Phase, SURVIVAL, Scheduler, TERMINATE_GRACE};
use crate::sys::{ExitStatus, Moment};

impl<T: Clone, B> Scheduler<T, B> {
    pub(super) fn replace(&mut self, w: &Worker, status: ExitStatus, now: Moment) {
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
    pub(super) fn fill_seats(&mut self) {
        let wanted = match self.phase {
            Phase::Running => self.target,
            // What is queued still has to be run by somebody; more workers than tasks would be born to leave.
            Phase::Draining if self.streams > 0 => self.target,
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
    pub(super) fn let_go(&mut self) {
        if self.phase != Phase::Draining || !self.is_idle() {
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
}
