//! The engine: the scheduler's hands. It owns the rings, the doorbells, the timer and the worker processes' handles, and it
//! is driven by whoever waits: a thread inside [`Engine::wait`] looks at the rings itself, without a hop through another
//! thread; when nobody waits, one background thread sleeps until a doorbell, an exit or a deadline.
//!
//! Starting processes and telling the owner what happened is not done here but handed out as [`Event`]s, since both may
//! need an interpreter.

mod background;
mod desks;
mod driving;
mod figures;
mod reactor;
mod terms;
mod waiting;

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

pub use desks::Body;
pub use figures::{Colleague, Figures, Totals};
pub use terms::{EngineError, Event, Options, Signals};
pub use waiting::{Outcome, Waiting};

use super::Message;
use super::job::{Job, Notify, Shape};
use super::scheduler::{Config, Limits, Phase, Scheduler, WorkerId};
use super::seat::{Hub, Seat, Waiter};
use super::worker::INLINE_MOST;
use crate::arena::{Allocator, Extent};
use crate::process::Child;
use crate::sys::spin::Spin;
use crate::sys::{Identity, Moment, Poller, Timer, close_raw, me, now};
use desks::{Desks, Roll};
use reactor::{Core, Tag};

/// While results come thick and fast, they are looked at this often and no worker rings a bell.
const POLL: Duration = Duration::from_micros(500);

/// How long the successor of a worker that is being ended is not started. Starting a process holds the interpreter, and so the
/// thread that waits to hear why its job has ended.
const COURTESY: Duration = Duration::from_millis(2);

fn os(doing: &'static str) -> impl FnOnce(io::Error) -> EngineError {
    move |source| EngineError::Os { doing, source }
}

/// Room in shared memory for a message that is being written.
#[derive(Debug, Clone, Copy)]
pub struct Room(Extent);

#[derive(Debug, Default)]
struct Service {
    queue: Mutex<VecDeque<Event>>,
    filled: Condvar,
    /// No process is started before this, in nanoseconds of the clock: see [`COURTESY`].
    start_after: AtomicU64,
}

impl Service {
    /// What is left until a process may be started.
    fn courtesy(&self) -> Duration {
        // Relaxed: a moment that is seen late is a courtesy that is not paid.
        Moment(self.start_after.load(Ordering::Relaxed)).since(now())
    }
}

#[derive(Debug)]
pub(super) struct Inner {
    identity: Identity,
    options: Options,
    hub: Arc<Hub>,
    rooms: Arc<Mutex<Allocator>>,
    roll: Arc<Roll>,
    core: Mutex<Core>,
    service: Service,
    poller: Poller,
    timer: Timer,
    spin: Mutex<Spin>,
}

/// Every engine of this process, so that a forked worker can close what it has no business with.
static ENGINES: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

/// Closes, in a freshly forked worker, the descriptors of all engines of its parent, but for those of its own seat.
///
/// # Fork
/// Call it only in a child that will never return to the code of the parent. A lock that was held when the child was forked
/// is left alone, and what it protects stays open.
pub fn close_inherited(own: &Seat, hub: &Hub) {
    let Ok(mut engines) = ENGINES.try_lock() else { return };
    // Taken off the list: the worker may have children itself, and to them the numbers mean something else.
    let engines = std::mem::take(&mut *engines);
    let keep = [own.descriptors(), hub.descriptors()].concat();
    for inner in engines.iter().filter_map(Weak::upgrade) {
        // The numbers are free for others from now on, so the values that would close them again must never be dropped.
        let inner = ManuallyDrop::new(inner);
        let mut fds = vec![inner.poller.descriptor(), inner.timer.descriptor()];
        fds.extend(inner.hub.descriptors());
        fds.extend(inner.roll.descriptors());
        fds.retain(|fd| !keep.contains(fd));
        fds.into_iter().for_each(close_raw);
    }
}

/// A pool of workers, as its owner holds it. Dropping it lets the pool finish what was submitted and then end.
///
/// # Fork
/// A forked copy answers [`EngineError::WrongProcess`] and drops without effect.
#[derive(Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Ok(mut core) = self.inner.enter() {
            core.scheduler.close();
            self.inner.after(&mut core);
        }
    }
}

impl Engine {
    /// An engine that asks for its first workers through [`Engine::next_event`]. Call [`Engine::run`] once they are started.
    pub fn new(options: Options) -> Result<Self, EngineError> {
        let hub = Arc::new(Hub::new().map_err(os("make the pool's shared memory"))?);
        let rooms = Arc::new(Mutex::new(Allocator::new(Arc::clone(&hub.area))));
        let poller = Poller::new().map_err(os("make an epoll instance"))?;
        let timer = Timer::new().map_err(os("make a timer"))?;
        let scheduler = Scheduler::new(Config {
            workers: options.workers,
            tasks_per_worker: options.tasks_per_worker,
            restart: options.restart.clone(),
        });
        let roll = Arc::new(Roll::default());
        let desks = Desks::new(Arc::clone(&hub), Arc::clone(&rooms), Arc::clone(&roll));
        let core = Core::new(scheduler, desks, options.signals, Arc::clone(&hub));
        let spin = Mutex::new(Spin::new(options.spin));
        let inner = Arc::new(Inner {
            identity: me(),
            options,
            hub,
            rooms,
            roll,
            core: Mutex::new(core),
            service: Service::default(),
            poller,
            timer,
            spin,
        });
        inner.register_descriptors().map_err(os("watch the doorbells"))?;
        let mut core = inner.enter()?;
        inner.after(&mut core);
        drop(core);
        let mut engines = ENGINES.lock().unwrap_or_else(PoisonError::into_inner);
        engines.retain(|engine| engine.strong_count() > 0);
        engines.push(Arc::downgrade(&inner));
        drop(engines);
        Ok(Self { inner })
    }

    /// Starts the background thread. It ends by itself when the pool is over.
    pub fn run(&self) -> Result<(), EngineError> {
        drop(self.inner.enter()?);
        background::start(Arc::clone(&self.inner)).map_err(os("start the background thread"))
    }

    /// Registers a function by the description that workers are sent; answers its number.
    pub fn register(&self, description: &[u8]) -> Result<u32, EngineError> {
        Ok(self.inner.enter()?.desks.register(description))
    }

    /// Makes a job's bytes ready to travel. Large ones go to shared memory at once.
    pub fn pack(&self, bytes: &[u8]) -> Message {
        if bytes.len() > INLINE_MOST
            && let Some(room) = self.room(bytes.len())
        {
            let rooms = self.rooms();
            rooms.fill(&room.0, 0, bytes);
            drop(rooms);
            if let Some(message) = self.filled(room) {
                return message;
            }
        }
        Message::copy(bytes)
    }

    fn rooms(&self) -> MutexGuard<'_, Allocator> {
        self.inner.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a large message in shared memory. `None`: there is none now, or what waits already has its share.
    ///
    /// # Fork
    /// `None` in a forked copy: the memory is shared, so what it would find free may be in use.
    pub fn room(&self, len: usize) -> Option<Room> {
        if !self.inner.identity.is_me() {
            return None;
        }
        // Messages at the head of the queue must find room even if those behind them have taken all they could get.
        self.rooms().allocate_modestly(len as u64).ok().flatten().map(Room)
    }

    /// Where a range of that room lies, to be written by a copy from foreign memory.
    #[must_use]
    pub fn pointer(&self, room: &Room, at: usize, len: usize) -> *mut u8 {
        self.rooms().pointer(&room.0, at, len)
    }

    /// The message that was written into a room.
    #[must_use]
    pub fn filled(&self, room: Room) -> Option<Message> {
        self.inner.hub.area.lease(room.0).ok().flatten().map(|lease| Message::Shared(Arc::new(lease)))
    }

    /// Submits one part of a job.
    pub fn submit(&self, job: &Arc<Job>, part: u32, body: Body, limits: Limits) -> Result<(), EngineError> {
        let mut core = self.accepting()?;
        self.inner.submit(&mut core, job, part, body, limits);
        self.inner.after(&mut core);
        Ok(())
    }

    /// Submits many parts at once; the iterator runs under the engine's lock and must not wait.
    pub fn submit_all(
        &self,
        job: &Arc<Job>,
        bodies: impl IntoIterator<Item = (u32, Body)>,
        limits: Limits,
    ) -> Result<(), EngineError> {
        let mut core = self.accepting()?;
        for (part, body) in bodies {
            self.inner.submit(&mut core, job, part, body, limits);
        }
        self.inner.after(&mut core);
        Ok(())
    }

    /// Whether work would be accepted now.
    pub fn is_open(&self) -> Result<(), EngineError> {
        self.accepting().map(drop)
    }

    /// Whether this is the process that made the pool. Ask before anything that may use the shared memory: in a forked
    /// copy its lock may be held by a thread that does not exist.
    pub fn is_mine(&self) -> Result<(), EngineError> {
        if self.inner.identity.is_me() { Ok(()) } else { Err(EngineError::WrongProcess) }
    }

    fn accepting(&self) -> Result<MutexGuard<'_, Core>, EngineError> {
        let core = self.inner.enter()?;
        match core.phase() {
            Phase::Running => Ok(core),
            phase => Err(EngineError::NotRunning(phase)),
        }
    }

    /// Announces a stream: parts may be submitted to it until [`Engine::fed`], even after the pool was closed.
    pub fn open_stream(&self) -> Result<(), EngineError> {
        self.accepting()?.scheduler.open_stream();
        Ok(())
    }

    /// Submits one more part of a stream.
    pub fn feed(&self, job: &Arc<Job>, part: u32, body: Body, limits: Limits) -> Result<(), EngineError> {
        let mut core = self.inner.enter()?;
        match core.phase() {
            Phase::Running | Phase::Draining => {}
            phase => return Err(EngineError::NotRunning(phase)),
        }
        job.expect();
        self.inner.submit(&mut core, job, part, body, limits);
        self.inner.after(&mut core);
        Ok(())
    }

    /// No more parts will be submitted to a stream.
    pub fn fed(&self, job: &Arc<Job>) -> Result<(), EngineError> {
        let mut core = self.inner.enter()?;
        core.scheduler.close_stream();
        if job.fed() {
            core.announce_end(job);
        }
        core.rouse(job);
        self.inner.after(&mut core);
        Ok(())
    }

    /// Ends a part of a job that never got to a worker.
    pub fn settle_part(&self, job: &Arc<Job>, part: u32, verdict: super::Verdict) -> Result<(), EngineError> {
        let mut core = self.inner.enter()?;
        core.settle_part(job, part, verdict);
        self.inner.after(&mut core);
        Ok(())
    }

    /// Begins to wait for a job; see [`Waiting`].
    pub fn wait<'e>(&'e self, job: &'e Arc<Job>) -> Result<Waiting<'e>, EngineError> {
        Waiting::new(&self.inner, job)
    }

    /// Completed when the pool is over: the last worker is gone.
    pub fn over(&self) -> Result<Arc<Job>, EngineError> {
        Ok(Arc::clone(&self.inner.enter()?.over))
    }

    /// Tokens of jobs that have ended and about which nobody wanted to be told.
    pub fn take_ended(&self, into: &mut Vec<u32>) {
        if let Ok(mut core) = self.inner.enter() {
            into.append(&mut core.ended);
        }
    }

    /// The next event for the service thread.
    ///
    /// # Blocking
    /// Until there is one, or `deadline` passes. Signals do not interrupt it: it is meant for a thread without handlers.
    pub fn next_event(&self, deadline: crate::sys::Deadline) -> Option<Event> {
        let service = &self.inner.service;
        let mut queue = service.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let courtesy = match queue.front() {
                Some(Event::Start(_)) => service.courtesy(),
                _ => Duration::ZERO,
            };
            if !courtesy.is_zero() {
                queue =
                    service.filled.wait_timeout(queue, courtesy).unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if let Some(event) = queue.pop_front() {
                return Some(event);
            }
            queue = match deadline.left() {
                Some(left) if left.is_zero() => return None,
                Some(left) => {
                    service.filled.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => service.filled.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Makes the seat that a new worker process takes.
    pub fn seat(&self, id: WorkerId) -> Result<(Arc<Seat>, Arc<Hub>), EngineError> {
        let seat = Seat::new(id).map_err(os("make a worker's shared memory"))?;
        Ok((Arc::new(seat), Arc::clone(&self.inner.hub)))
    }

    /// The worker's process runs. The name is told with its losses.
    pub fn started(&self, seat: Arc<Seat>, child: Arc<Child>, name: &str) -> Result<(), EngineError> {
        let id = seat.id();
        let mut core = self.inner.enter()?;
        // A worker that cannot be watched is looked at: its end must not go unnoticed.
        let blind = child.sentinel().is_none() || self.inner.watch(id, &child).is_err();
        core.polling |= blind;
        core.desks.open(seat, child, name, blind);
        core.scheduler.started(id);
        // The worker may have announced itself before we knew where to look.
        core.turn();
        self.inner.after(&mut core);
        Ok(())
    }

    /// The worker's process could not be started.
    pub fn not_started(&self, id: WorkerId) -> Result<(), EngineError> {
        let mut core = self.inner.enter()?;
        let Core { scheduler, desks, .. } = &mut *core;
        scheduler.not_started(id, now(), desks);
        self.inner.after(&mut core);
        Ok(())
    }

    /// Where the pool is in its life; `Draining` in a forked copy, which accepts nothing.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.inner.enter().map_or(Phase::Draining, |core| core.phase())
    }

    /// Stops accepting; what was accepted is finished.
    pub fn close(&self) -> Result<(), EngineError> {
        let mut core = self.inner.enter()?;
        core.scheduler.close();
        self.inner.after(&mut core);
        Ok(())
    }

    /// Ends everything now. Pending jobs have ended when this returns; [`Engine::over`] tells when the workers are gone.
    pub fn terminate(&self) -> Result<(), EngineError> {
        let mut core = self.inner.enter()?;
        // What was finished counts.
        core.turn();
        let Core { scheduler, desks, .. } = &mut *core;
        scheduler.terminate(now(), desks);
        self.inner.after(&mut core);
        Ok(())
    }

    /// Adds workers.
    pub fn grow(&self, n: u32) -> Result<(), EngineError> {
        let mut core = self.accepting()?;
        core.scheduler.grow(n);
        self.inner.after(&mut core);
        Ok(())
    }

    /// Sends idle workers home; all of them or none. Answers who goes.
    pub fn shrink(&self, n: u32) -> Result<Vec<i32>, EngineError> {
        let mut core = self.accepting()?;
        core.turn();
        let Core { scheduler, desks, .. } = &mut *core;
        let gone = scheduler.shrink(n, desks).ok_or(EngineError::AllBusy(n))?;
        let pids = gone.iter().filter_map(|id| desks.get(*id)).map(|d| d.child.pid()).collect();
        self.inner.after(&mut core);
        Ok(pids)
    }

    /// Replaces every worker as soon as it has finished what it runs.
    pub fn renew(&self) -> Result<(), EngineError> {
        let mut core = self.accepting()?;
        let Core { scheduler, desks, .. } = &mut *core;
        scheduler.renew(now(), desks);
        self.inner.after(&mut core);
        Ok(())
    }

    /// Signals the worker with this process id; if it dies of it, what it runs ends as terminated. Answers whether there is
    /// such a worker.
    pub fn end_job(&self, pid: i32, signal: i32) -> Result<bool, EngineError> {
        let mut core = self.inner.enter()?;
        core.turn();
        let Some((id, child)) =
            core.desks.iter().find(|d| d.child.pid() == pid).map(|d| (d.seat.id(), Arc::clone(&d.child)))
        else {
            return Ok(false);
        };
        let Core { scheduler, desks, .. } = &mut *core;
        scheduler.end_job(id, now(), desks);
        let _ = child.signal(signal);
        self.inner.after(&mut core);
        Ok(true)
    }

    /// Which workers run or hold parts of a job that has not ended, by process id, and since when they run it.
    pub fn whereabouts(&self, job: &Arc<Job>) -> Vec<(i32, Moment)> {
        let Ok(core) = self.inner.enter() else { return Vec::new() };
        core.desks
            .iter()
            .filter_map(|desk| {
                let (key, since) = desk.seat.running()?;
                let tag = core.scheduler.tag(key)?;
                Arc::ptr_eq(&tag.job, job).then(|| (desk.child.pid(), since))
            })
            .collect()
    }

    /// Tasks that have not ended, and those among them that no worker has been given.
    #[must_use]
    pub fn load(&self) -> (usize, usize) {
        self.inner.enter().map_or((0, 0), |core| (core.scheduler.pending(), core.scheduler.queued()))
    }

    /// What the last worker has said that could not start, or did not end as it should: why a pool is broken.
    #[must_use]
    pub fn start_error(&self) -> Option<String> {
        self.inner.enter().ok()?.start_error.clone()
    }

    /// How many workers are wanted.
    #[must_use]
    pub fn target(&self) -> u32 {
        self.inner.enter().map_or(0, |core| core.scheduler.target())
    }

    /// Whether workers may spin.
    #[must_use]
    pub fn may_spin(&self) -> bool {
        self.inner.options.spin
    }

    /// A job of this engine's owner.
    #[must_use]
    pub fn job(&self, id: u64, token: u32, shape: Shape, notify: Notify) -> Arc<Job> {
        Arc::new(Job::new(id, token, shape, notify))
    }
}

impl Inner {
    /// The lock, unless this is a forked copy: its lock may be held by a thread that does not exist here.
    fn enter(&self) -> Result<MutexGuard<'_, Core>, EngineError> {
        if !self.identity.is_me() {
            return Err(EngineError::WrongProcess);
        }
        Ok(self.core.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn submit(&self, core: &mut Core, job: &Arc<Job>, part: u32, body: Body, limits: Limits) {
        let tag = Tag { job: Arc::clone(job), part };
        let Core { scheduler, desks, .. } = core;
        let now = if limits == Limits::NONE && scheduler.is_saturated() { Moment(0) } else { now() };
        scheduler.submit(tag, body, limits, now, desks);
        core.active = true;
    }

    /// What must follow everything that may have changed something: decisions are carried out, events are passed on, the
    /// timer is set.
    fn after(&self, core: &mut Core) {
        core.carry_out();
        core.check_over();
        if !core.events.is_empty() {
            let mut queue = self.service.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.append(&mut core.events);
            // Relaxed: read under the same lock.
            self.service.start_after.store(core.start_after.0, Ordering::Relaxed);
            drop(queue);
            if !core.driven {
                self.service.filled.notify_one();
            } else if !core.pumping {
                self.hub.background.ring();
            }
        }
        self.set_timer(core);
    }

    fn set_timer(&self, core: &mut Core) {
        let look = core.polling.then(|| now().after(POLL));
        let wanted = [core.scheduler.next_deadline(), core.desks.tend_at, look].into_iter().flatten().min();
        let Some(at) = wanted else { return };
        // A timer that is set for an earlier moment wakes the background thread, which sets it anew.
        if core.timer.is_some_and(|set| set <= at) {
            return;
        }
        core.timer = Some(at);
        self.timer.set(at);
    }

    fn register_descriptors(&self) -> io::Result<()> {
        self.poller.add(&self.hub.background, background::BELL)?;
        self.poller.add(&self.timer, background::TIMER)
    }

    fn watch(&self, id: WorkerId, child: &Child) -> io::Result<()> {
        child.sentinel().map_or(Ok(()), |fd| self.poller.add(fd, background::exit_token(id)))
    }

    /// Who must be woken while nobody looks: the background thread, by a bell or, while much is going on, by its timer.
    fn stand_down(&self, core: &mut Core) {
        if core.polling {
            self.hub.set_waiter(Waiter::Awake);
        } else {
            self.hub.set_waiter(Waiter::Background);
            core.turn();
        }
    }
}
