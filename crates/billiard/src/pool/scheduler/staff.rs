//! Who is employed: starting, replacing, growing, shrinking, and the ways in which a pool ends.

use super::roster::{Worker, WorkerId, WorkerState};
use super::{Action, Channels, EX_RECYCLE, Failure, Phase, SURVIVAL, Scheduler, TERMINATE_GRACE};
use crate::sys::{ExitStatus, Moment};

impl<T: Clone, B> Scheduler<T, B> {
    /// A worker is gone. `lost`: it had claimed a task.
    pub(super) fn replace<C: Channels<Body = B>>(
        &mut self,
        w: &Worker,
        status: ExitStatus,
        lost: bool,
        now: Moment,
        channels: &mut C,
    ) {
        if !matches!(self.phase, Phase::Running | Phase::Draining) {
            return;
        }
        let regular = matches!(status, ExitStatus::Code(0 | EX_RECYCLE));
        let expected = regular || w.told_to_end || w.state == WorkerState::Dying;
        let never_worked = !w.proven && !lost;
        // One that came up and died at once would come up and die for ever, as fast as processes can be made.
        let stillborn = w.state == WorkerState::Starting && !w.told_to_end || !expected;
        if stillborn && never_worked {
            let others_work = self.roster.iter().any(|w| w.state == WorkerState::Up);
            self.restart.failed_start(now, others_work);
        }
        if !expected && !w.proven {
            self.restart.unproven_loss(now);
        }
        if self.restart.exhausted() {
            self.break_down(now, channels);
        } else {
            self.fill_seats();
        }
    }

    fn break_down<C: Channels<Body = B>>(&mut self, now: Moment, channels: &mut C) {
        self.phase = Phase::Broken;
        self.take_everything_back(channels);
        self.actions.push(Action::Broke);
        self.fail_everything(&Failure::Broken);
        self.end_workers(false, now);
    }

    /// What is about to fail must not be run as well.
    fn take_everything_back<C: Channels<Body = B>>(&mut self, channels: &mut C) {
        let ids: Vec<_> = self.roster.iter().map(|w| w.id).collect();
        for id in ids {
            self.take_back(id, channels);
        }
    }

    /// Asks for the processes that are missing, as far as the restart policy lets us.
    pub(super) fn fill_seats(&mut self) {
        let wanted = match self.phase {
            Phase::Running => self.target,
            // What is queued still has to be run by somebody; more workers than tasks would be born to leave.
            // A pool that was shrunk to nobody still ends.
            Phase::Draining if self.streams > 0 => self.target.max(1),
            Phase::Draining => self.target.max(1).min(u32::try_from(self.tasks.len()).unwrap_or(u32::MAX)),
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
            // Somebody has to run what is pending, also in a pool that was shrunk to nobody.
            self.fill_seats();
        }
    }

    /// Ends everything: pending tasks fail, idle workers leave, busy ones are terminated and, if need be, killed.
    pub fn terminate<C: Channels<Body = B>>(&mut self, now: Moment, channels: &mut C) {
        if self.phase == Phase::Terminating {
            return;
        }
        self.phase = Phase::Terminating;
        self.take_everything_back(channels);
        let busy: Vec<_> = self.roster.iter().filter(|w| !w.handed.is_empty()).map(|w| w.id).collect();
        self.fail_everything(&Failure::Terminated { status: None });
        for id in busy {
            self.doom(id, now);
        }
        self.end_workers(true, now);
    }

    fn fail_everything(&mut self, why: &Failure) {
        self.queue.clear();
        for w in self.roster.iter_mut() {
            w.handed.clear();
            w.check_at = None;
        }
        for task in self.tasks.drain() {
            self.actions.push(Action::Fail { tag: task.tag, why: why.clone() });
        }
    }

    /// Sends everybody home who is not already on the way, and sees to it that they go.
    fn end_workers(&mut self, gently: bool, now: Moment) {
        self.withdraw_starts();
        self.restart.stop();
        self.doubt_at = None;
        for w in self.roster.iter_mut() {
            w.kill_at.get_or_insert(now.after(TERMINATE_GRACE));
            w.paused_until = None;
            w.rests_until = None;
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

    /// Takes the starts back that nobody has heard of yet.
    fn withdraw_starts(&mut self) {
        let roster = &mut self.roster;
        self.actions.retain(|action| match action {
            Action::Start(id) => roster.remove(*id).is_none(),
            _ => true,
        });
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
        let mut idle: Vec<_> = self
            .roster
            .iter()
            .filter(|w| w.has_process && w.stays() && w.paused_until.is_none() && w.handed.is_empty())
            .map(|w| (!w.suspect, channels.running(w.id).is_some(), w.freshness, w.id))
            .collect();
        if idle.len() < n as usize {
            return None;
        }
        // Those go first that are of least use.
        idle.sort_unstable();
        let leaving: Vec<_> = idle.into_iter().map(|(.., id)| id).take(n as usize).collect();
        self.target = self.target.saturating_sub(n);
        for &id in &leaving {
            self.retire(id);
        }
        // One of them may have been the start that others waited for.
        self.fill_seats();
        Some(leaving)
    }

    /// Replaces every worker once it has finished what it runs.
    pub fn renew<C: Channels<Body = B>>(&mut self, now: Moment, channels: &mut C) {
        let ids: Vec<_> = self.roster.iter().filter(|w| w.has_process && w.stays()).map(|w| w.id).collect();
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
            // What could not be taken back last is claimed, be it not yet on the status page, or finished and on its way.
            w.condemned = w.handed.back().copied();
            w.paused_until = Some(now.after(SURVIVAL));
        }
        self.saturated = false;
        self.dispatch(now, channels);
    }
}
