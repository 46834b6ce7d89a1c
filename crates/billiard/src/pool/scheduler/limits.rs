//! Time limits. A worker runs one task at a time, so there is one clock per worker, not one per task: `check_at` is the
//! earliest moment at which what it runs *could* be over a limit. Only then is it looked up what really runs, since when.

use std::time::Duration;

use super::roster::{WorkerId, WorkerState};
use super::tasks::{Place, TaskKey};
use super::{Action, Channels, Failure, Scheduler, TERMINATE_GRACE};
use crate::sys::Moment;

/// How long before a hard limit the worker is asked where it is, so that the error can tell.
const INSPECT_AHEAD: Duration = Duration::from_millis(10);
/// A task behind the running one is looked at no more often than this.
const COARSE: Duration = Duration::from_millis(1);

/// How long before this hard limit the worker is asked.
pub(super) fn ahead_of(limit: Duration) -> Duration {
    INSPECT_AHEAD.min(limit / 2)
}

impl<T: Clone, B> Scheduler<T, B> {
    /// Fires what the worker's running task has passed, and notes when to look again.
    pub(super) fn check_limits<C: Channels<Body = B>>(
        &mut self,
        id: WorkerId,
        now: Moment,
        channels: &mut C,
    ) {
        let running = channels.running(id);
        let mut next: Option<Moment> = None;
        let mut at = |moment: Moment| next = Some(next.map_or(moment, |old| old.min(moment)));
        let Some(w) = self.roster.get_mut(id) else { return };
        w.check_at = None;
        if w.state == WorkerState::Dying {
            return;
        }
        if let Some((key, since)) = running
            && let Some(task) = self.tasks.get_mut(key)
            && task.place == Place::At(id)
        {
            let limits = task.limits();
            if let Some(limit) = limits.soft
                && let Some(watch) = task.watch.as_deref_mut().filter(|watch| !watch.interrupted)
            {
                let due = since.after(limit);
                if due <= now {
                    watch.interrupted = true;
                    let tag = task.tag.clone();
                    self.actions.push(Action::Interrupt { tag, worker: id, task: key, limit });
                } else {
                    at(due);
                }
            }
            if let Some(limit) = limits.hard {
                let due = since.after(limit);
                if due <= now {
                    self.overdue(id, key, limit, now, channels);
                    return;
                }
                at(due);
                if w.inspected != Some(key) {
                    let look = Moment(due.0.saturating_sub(ahead_of(limit).as_nanos() as u64));
                    if look <= now {
                        w.inspected = Some(key);
                        self.actions.push(Action::Inspect(id));
                    } else {
                        at(look);
                    }
                }
            }
        }
        for key in w.handed.iter().filter(|k| running.is_none_or(|(r, _)| r != **k)) {
            if let Some(limit) = self.tasks.get(*key).and_then(|t| t.limits().first()) {
                at(now.after(limit.max(COARSE)));
            }
        }
        w.check_at = next;
    }

    /// The running task is over its hard limit. Only this task may be hit: everything behind it is taken back first, and if
    /// the worker has meanwhile gone on to another task, it is left alone.
    fn overdue<C: Channels<Body = B>>(
        &mut self,
        id: WorkerId,
        key: TaskKey,
        limit: Duration,
        now: Moment,
        channels: &mut C,
    ) {
        self.take_back(id, channels);
        self.saturated = false;
        if channels.running(id).is_none_or(|(running, _)| running != key) {
            // Its result is on the way; what follows has its own clock.
            if let Some(w) = self.roster.get_mut(id) {
                w.check_at = Some(now.after(COARSE));
            }
            return;
        }
        if let Some(w) = self.roster.get_mut(id) {
            w.forget(key);
        }
        if let Some(task) = self.tasks.remove(key) {
            self.actions.push(Action::Fail { tag: task.tag, why: Failure::TimeLimit { worker: id, limit } });
        }
        self.doom(id, now);
        self.fill_seats();
    }

    /// Ends a worker: asks first, then, after the grace time, does not ask.
    pub(super) fn doom(&mut self, id: WorkerId, now: Moment) {
        if let Some(w) = self.roster.get_mut(id) {
            w.state = WorkerState::Dying;
            w.told_to_end = true;
            w.kill_at = Some(now.after(TERMINATE_GRACE));
            self.actions.push(Action::Terminate(id));
        }
    }
}
