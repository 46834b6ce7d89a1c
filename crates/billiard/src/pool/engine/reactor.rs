//! What happens when somebody looks at the rings: results are taken, the scheduler decides, and its decisions are carried
//! out. Everything here runs under the engine's one lock, by whichever thread has just looked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::super::Message;
use super::super::job::{Job, Notify, Report, Shape, Verdict};
use super::super::scheduler::{
    Action, EX_RECYCLE, Failure, Phase, Scheduler, TaskKey, WorkerId, WorkerState,
};
use super::super::seat::{Asleep, Command, Hub};
use super::super::worker::{ACCEPTED, IS_ERROR, IS_LAST, IS_SHARED, RESULT, UP, decode_extent};
use super::desks::{Body, Desk, Desks};
use super::figures::Totals;
use super::{COURTESY, Event, Signals};
use crate::sys::{EventFd, ExitStatus, Moment, memory, now};

/// Whose task it is, and which part of it.
#[derive(Clone, Debug)]
pub(super) struct Tag {
    pub(super) job: Arc<Job>,
    pub(super) part: u32,
}

/// A thread that sleeps until a job makes progress.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) job: Arc<Job>,
    pub(super) bell: Arc<EventFd>,
}

/// Everything that is decided together.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) scheduler: Scheduler<Tag, Body>,
    pub(super) desks: Desks,
    pub(super) signals: Signals,
    /// What the owner's service thread has to do, in order.
    pub(super) events: VecDeque<Event>,
    /// Tokens of jobs that ended and about which nobody wanted to be told.
    pub(super) ended: Vec<u32>,
    pub(super) followers: Vec<Follower>,
    /// The owner drives the engine: there is no background thread.
    pub(super) driven: bool,
    /// The owner is just looking, and takes the events afterwards.
    pub(super) pumping: bool,
    /// A thread of the program leads: it looks at the rings itself.
    pub(super) led: bool,
    pub(super) leader_sleeps: bool,
    /// Results are looked at every so often without a doorbell, since there are many of them.
    pub(super) polling: bool,
    /// Something has happened since the last regular look.
    pub(super) active: bool,
    /// For what moment the timer is set.
    pub(super) timer: Option<Moment>,
    /// What has become of the tasks so far.
    pub(super) totals: Totals,
    /// Completed when the pool is over.
    pub(super) over: Arc<Job>,
    pub(super) hub: Arc<Hub>,
    /// No process is started before this.
    pub(super) start_after: Moment,
    /// How many processes the kernel had killed for memory when we last looked.
    memory_kills: Option<u64>,
    /// Whether that is why the worker died that is being looked after.
    out_of_memory: Option<bool>,
    /// What the last worker said that could not start, or did not end as it should.
    pub(super) start_error: Option<String>,
    scratch: Vec<u8>,
    actions: Vec<Action<Tag>>,
}

impl Core {
    pub(super) fn new(
        scheduler: Scheduler<Tag, Body>,
        desks: Desks,
        signals: Signals,
        hub: Arc<Hub>,
    ) -> Self {
        let over = Arc::new(Job::new(0, 0, Shape::Single, Notify::default()));
        let mut core = Self {
            scheduler,
            desks,
            signals,
            events: VecDeque::new(),
            ended: Vec::new(),
            followers: Vec::new(),
            driven: false,
            pumping: false,
            led: false,
            leader_sleeps: false,
            polling: false,
            active: false,
            timer: None,
            totals: Totals::default(),
            over,
            hub,
            start_after: Moment(0),
            memory_kills: memory::oom_kills(),
            out_of_memory: None,
            start_error: None,
            scratch: Vec::new(),
            actions: Vec::new(),
        };
        core.carry_out();
        core
    }

    /// Takes all results that are there. Answers how many messages there were.
    pub(super) fn turn(&mut self) -> usize {
        let mut taken = 0;
        for seat in 0..self.desks.seats() {
            taken += self.drain(seat);
        }
        if taken > 0 {
            self.active = true;
            self.scheduler.settle(now(), &mut self.desks);
        }
        if self.scheduler.has_actions() {
            self.carry_out();
        }
        taken
    }

    /// Takes what one worker has published.
    fn drain(&mut self, seat: usize) -> usize {
        let mut taken = 0;
        loop {
            let Some(desk) = self.desks.at_mut(seat) else { return taken };
            let id = desk.seat.id();
            self.scratch.clear();
            let head = match desk.results.claim(&mut self.scratch, |_| {}) {
                Ok(Some(head)) => head,
                Ok(None) => {
                    if taken > 0 {
                        desk.seat.wake(Asleep::Room);
                    }
                    return taken;
                }
                Err(_) => {
                    // What such a worker says cannot be trusted any more; its end tells what was lost.
                    let _ = desk.child.signal(libc::SIGKILL);
                    return taken;
                }
            };
            taken += 1;
            match head.kind {
                RESULT => {
                    let key = TaskKey::from_bits(head.key);
                    let message = if head.aux & IS_SHARED == 0 {
                        Message::copy(&self.scratch)
                    } else if let Some(message) = claim_shared(desk, &self.scratch) {
                        message
                    } else {
                        // A result that cannot be had is lost, and its worker with it: it would only go on like this.
                        let _ = desk.child.signal(libc::SIGKILL);
                        return taken;
                    };
                    let pid = desk.child.pid();
                    self.desks.forget(id, key);
                    if let Some(tag) = self.scheduler.finished(id, key, Duration::from_nanos(head.extra)) {
                        self.totals.finished += 1;
                        if let Some(desk) = self.desks.get_mut(id) {
                            desk.finished += 1;
                        }
                        let verdict = if head.aux & IS_ERROR == 0 {
                            Verdict::Value(message)
                        } else {
                            Verdict::Error(message)
                        };
                        tag.job.ran_by(pid);
                        self.complete(&tag, verdict);
                    }
                    if head.aux & IS_LAST != 0 {
                        self.scheduler.leaving(id, now(), &mut self.desks);
                    }
                }
                UP => {
                    self.scheduler.up(id);
                    self.events.push_back(Event::Up(id));
                }
                ACCEPTED => self.accepted(id, TaskKey::from_bits(head.key), head.extra),
                _ => {
                    let _ = desk.child.signal(libc::SIGKILL);
                }
            }
        }
    }

    fn accepted(&mut self, id: WorkerId, key: TaskKey, since: u64) {
        let Some(pid) = self.desks.get(id).map(|d| d.child.pid()) else { return };
        if let Some(tag) = self.scheduler.tag(key) {
            tag.job.accept(pid, since);
            if tag.job.notify().accepted {
                let event =
                    Event::Accepted { job: Arc::clone(&tag.job), part: tag.part, pid, at: Moment(since) };
                self.events.push_back(event);
            }
        }
    }

    fn complete(&mut self, tag: &Tag, verdict: Verdict) {
        let over = tag.job.complete(tag.part, verdict);
        if tag.job.is_watched() {
            self.rouse(&tag.job);
        }
        if over {
            self.announce_end(&tag.job);
        }
    }

    /// Takes back what no worker has claimed of the jobs that `wanted` names. Nobody is told of their end but who waits.
    pub(super) fn withdraw(&mut self, wanted: impl Fn(&Job) -> bool) -> Vec<Arc<Job>> {
        let Self { scheduler, desks, .. } = self;
        let tags = scheduler.withdraw(|tag| wanted(&tag.job), now(), desks);
        let mut jobs: Vec<Arc<Job>> = Vec::new();
        for tag in tags {
            let report = self.report(&tag, Failure::Terminated { status: None });
            let over = tag.job.complete(tag.part, Verdict::Failed(Box::new(report)));
            self.totals.withdrawn += 1;
            if tag.job.is_watched() {
                self.rouse(&tag.job);
            }
            if over {
                self.ended.push(tag.job.token());
                jobs.push(tag.job);
            }
        }
        jobs
    }

    /// Ends a part of a job that never got to a worker.
    pub(super) fn settle_part(&mut self, job: &Arc<Job>, part: u32, verdict: Verdict) {
        self.complete(&Tag { job: Arc::clone(job), part }, verdict);
    }

    /// Tells the owner that a job has ended.
    pub(super) fn announce_end(&mut self, job: &Arc<Job>) {
        if job.notify().done {
            self.events.push_back(Event::Done(Arc::clone(job)));
        } else {
            self.ended.push(job.token());
        }
    }

    /// Wakes whoever sleeps for this job.
    pub(super) fn rouse(&mut self, job: &Arc<Job>) {
        for follower in self.followers.iter().filter(|f| Arc::ptr_eq(&f.job, job)) {
            follower.bell.ring();
        }
        if self.leader_sleeps {
            self.hub.leader.ring();
        }
    }

    /// Carries out what the scheduler has decided.
    pub(super) fn carry_out(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        while self.scheduler.has_actions() {
            self.scheduler.take_actions(&mut actions);
            for action in actions.drain(..) {
                self.perform(action);
            }
        }
        self.actions = actions;
    }

    fn perform(&mut self, action: Action<Tag>) {
        match action {
            Action::Fail { tag, why } => {
                self.totals.count(&why);
                let report = self.report(&tag, why);
                self.complete(&tag, Verdict::Failed(Box::new(report)));
            }
            Action::Start(id) => self.events.push_back(Event::Start(id)),
            Action::Inspect(id) => {
                if let Some(desk) = self.desks.get(id) {
                    desk.seat.notebook().clear();
                }
                self.signal(id, self.signals.inspect);
            }
            Action::Interrupt { tag, worker, task, limit } => {
                if tag.job.notify().soft_limit {
                    self.events.push_back(Event::SoftLimit { job: tag.job, part: tag.part, limit });
                }
                if let Some(desk) = self.desks.get(worker) {
                    desk.seat.aim(task);
                    self.signal(worker, self.signals.soft);
                }
            }
            Action::Terminate(id) => {
                self.start_after = now().after(COURTESY);
                self.signal_group(id, self.signals.terminate);
            }
            Action::Kill(id) => self.signal_group(id, libc::SIGKILL),
            Action::Retire(id) => {
                if let Some(desk) = self.desks.get(id) {
                    desk.seat.command(Command::Leave);
                }
            }
            Action::Broke => self.events.push_back(Event::Broke),
        }
    }

    /// A signal that does not arrive any more has found its worker dead, and that is being told anyway.
    fn signal(&self, id: WorkerId, signal: i32) {
        if let Some(desk) = self.desks.get(id) {
            let _ = desk.child.signal(signal);
        }
    }

    fn signal_group(&self, id: WorkerId, signal: i32) {
        if let Some(desk) = self.desks.get(id) {
            let _ = desk.child.signal_group(signal);
        }
    }

    fn report(&self, tag: &Tag, why: Failure) -> Report {
        let (worker, ran) = match &why {
            Failure::Lost { worker, ran, .. } => (Some(*worker), *ran),
            Failure::TimeLimit { worker, limit } => (Some(*worker), *limit),
            Failure::Terminated { .. } | Failure::Broken => (None, Duration::ZERO),
        };
        let desk = worker.and_then(|id| self.desks.get(id));
        Report {
            part: tag.part,
            pid: desk.map(|d| d.child.pid()),
            worker_name: desk.map(|d| Arc::clone(&d.name)),
            last_words: match why {
                Failure::Broken => self.start_error.clone(),
                _ => desk.and_then(|d| d.seat.notebook().read()),
            },
            ran,
            peak_rss_kib: desk.and_then(|d| d.child.peak_rss_kib()),
            out_of_memory: match why {
                Failure::Lost { .. } => self.out_of_memory,
                _ => None,
            },
            why,
        }
    }

    /// Whether memory is why a worker was killed: the kernel's counter has moved since the last look.
    fn look_for_memory_kills(&mut self, status: ExitStatus) {
        self.out_of_memory = None;
        if status == ExitStatus::Signal(libc::SIGKILL) {
            let kills = memory::oom_kills();
            self.out_of_memory = kills.zip(self.memory_kills).map(|(now, before)| now > before);
            self.memory_kills = kills;
        }
    }

    /// Looks whether this worker has ended, and if so, settles everything about it.
    pub(super) fn look_after(&mut self, id: WorkerId) -> bool {
        let Some(desk) = self.desks.get(id) else { return false };
        let pid = desk.child.pid();
        let status = match desk.child.poll() {
            Ok(None) => return false,
            Ok(Some(status)) => status,
            Err(_) => ExitStatus::Unknown,
        };
        self.look_for_memory_kills(status);
        self.drain(id.seat as usize);
        let last_words = self.desks.get(id).and_then(|d| d.seat.notebook().read());
        let starting = self.scheduler.state(id) == Some(WorkerState::Starting);
        let regular = matches!(status, ExitStatus::Code(0 | EX_RECYCLE));
        if last_words.is_some() && (starting || !regular) {
            self.start_error.clone_from(&last_words);
        }
        self.totals.exits += 1;
        self.scheduler.gone(id, status, now(), &mut self.desks);
        let known = self.events.len();
        // The verdicts look at the desk, so it is closed after them.
        self.carry_out();
        self.totals.recalled += self.desks.close(id).map_or(0, |desk| desk.recalled);
        // A successor is started after the owner has let go of the one that is gone, or it would inherit what is left.
        let new = self.events.split_off(known);
        let (starts, others): (VecDeque<_>, _) = new.into_iter().partition(|e| matches!(e, Event::Start(_)));
        self.events.extend(others);
        self.events.push_back(Event::Exited { worker: id, pid, status, last_words });
        self.events.extend(starts);
        true
    }

    /// Whether everything is over; tells those who wait for it.
    pub(super) fn check_over(&mut self) -> bool {
        if !self.scheduler.is_over() {
            return false;
        }
        if self.over.complete(0, Verdict::Value(Message::copy(&[]))) {
            let over = Arc::clone(&self.over);
            self.rouse(&over);
            self.events.push_back(Event::Over);
        }
        true
    }

    pub(super) const fn phase(&self) -> Phase {
        self.scheduler.phase()
    }
}

/// A worker's room for large results is its own to share out: how many extents of it may be in the hands of callers, who
/// keep them as long as they like, before we rather copy.
const MOST_HELD: usize = 4096;
/// What is not larger than this is copied at once; so small a piece is not worth a page of its own.
const COPIED: usize = 64 * 1024;

/// A large result: in place, or as a copy if in place it would be in the way.
fn claim_shared(desk: &Desk, name: &[u8]) -> Option<Message> {
    let area = &desk.seat.area;
    let lease = area.lease(decode_extent(name)?).ok().flatten()?;
    if lease.len() > COPIED && Arc::strong_count(area) < MOST_HELD && !lease.lies_high() {
        return Some(Message::Shared(Arc::new(lease)));
    }
    let mut bytes = Vec::new();
    lease.read_to(0, lease.len(), &mut bytes);
    Some(Message::Heap(bytes.into()))
}
