//! A pool for Rust programs: workers are forked off the program and run one function of bytes.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::Message;
use super::engine::{Body, Engine, EngineError, Event, Options, Outcome, Signals};
use super::job::{Job, Notify, Report, Shape, Verdict};
use super::scheduler::{Limits, RestartPolicy, WorkerId};
use super::worker::{INLINE_MOST, Order, Runtime, WorkerError};
use crate::process::{Child, Orphan, Parent};
use crate::sys::signal::{Blocked, Mask};
use crate::sys::{Deadline, Forked, cpu, exit_now, fork, thread};

/// What the workers of a [`Pool`] run: request in, response out; the error is bytes too.
pub type Handler = dyn Fn(&[u8]) -> Result<Vec<u8>, Vec<u8>> + Send + Sync;

/// How a pool is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many workers.
    pub workers: u32,
    /// Requests after which a worker is replaced.
    pub requests_per_worker: Option<u32>,
}

impl Default for Settings {
    /// One worker per usable processor, none of them replaced while it lives.
    fn default() -> Self {
        let workers = u32::try_from(cpu::usable(None)).unwrap_or(1);
        Self { workers, requests_per_worker: None }
    }
}

/// Why a request has no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The handler answered with an error.
    #[error("the handler failed with {} bytes of explanation", .0.len())]
    Handler(Vec<u8>),
    /// The handler did not get to answer.
    #[error("the request ended without a response: {:?}", .0.why)]
    Ended(Box<Report>),
    /// There is no response yet.
    #[error("no response in time")]
    TimedOut,
    /// The pool refuses.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A pool of forked workers.
///
/// ```no_run
/// use billiard::pool::{Pool, Settings};
///
/// let pool = Pool::start(Settings::default(), |request: &[u8]| Ok(request.to_ascii_uppercase()))?;
/// let answer = pool.submit(b"hello", None)?.wait(None)?;
/// assert_eq!(answer, b"HELLO");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Fork
/// Start it before the program starts threads of its own: a worker is a copy of the program in which only the thread that
/// forked goes on, so whatever another thread had locked stays locked in it. In a forked copy, every call answers
/// [`EngineError::WrongProcess`].
#[derive(Debug)]
pub struct Pool {
    engine: Arc<Engine>,
    next: AtomicU64,
    service: Mutex<Option<JoinHandle<()>>>,
}

/// A request that was submitted.
#[derive(Debug)]
pub struct Pending {
    engine: Arc<Engine>,
    job: Arc<Job>,
}

impl Pool {
    /// Starts the workers.
    ///
    /// # Errors
    /// The kernel has no room for another process, descriptor or segment.
    pub fn start<F>(settings: Settings, handler: F) -> Result<Self, EngineError>
    where
        F: Fn(&[u8]) -> Result<Vec<u8>, Vec<u8>> + Send + Sync + 'static,
    {
        let Settings { workers, requests_per_worker: share } = settings;
        let blocked = Blocked::new();
        let blocked = blocked.map_err(|source| EngineError::Os { doing: "read the signal mask", source })?;
        let craft = Craft { handler: Arc::new(handler), share, open: *blocked.before() };
        drop(blocked);
        let engine = Arc::new(Engine::new(Options {
            workers,
            tasks_per_worker: share,
            restart: RestartPolicy::default(),
            // Without an interpreter there is nobody to interrupt or to ask where it is.
            signals: Signals { terminate: libc::SIGTERM, soft: 0, inspect: 0 },
            spin: cpu::usable(None) > 1,
        })?);
        for _ in 0..workers {
            if let Some(event) = engine.next_event(Deadline::At(crate::sys::now())) {
                serve(&engine, &craft, &event);
            }
        }
        engine.run()?;
        let served = Arc::clone(&engine);
        let service = thread::spawn("billiard-service", 512 * 1024, move || {
            while let Some(event) = served.next_event(Deadline::Never) {
                serve(&served, &craft, &event);
                if matches!(event, Event::Over) {
                    return;
                }
            }
        });
        let service =
            service.map_err(|source| EngineError::Os { doing: "start the service thread", source })?;
        Ok(Self { engine, next: AtomicU64::new(0), service: Mutex::new(Some(service)) })
    }

    /// Submits a request. With a limit, its worker is ended when the request takes longer, and the request fails.
    ///
    /// # Errors
    /// The pool was closed.
    pub fn submit(&self, request: &[u8], limit: Option<Duration>) -> Result<Pending, RequestError> {
        // Relaxed: only uniqueness matters.
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let job = self.engine.job(id, 0, Shape::Single, Notify::default());
        let body = Body { function: 0, tell: false, message: self.engine.pack(request) };
        self.engine.submit(&job, 0, body, Limits { soft: None, hard: limit })?;
        // Nobody asks this pool for the tokens of jobs that have ended.
        self.engine.take_ended(&mut Vec::new());
        Ok(Pending { engine: Arc::clone(&self.engine), job })
    }

    /// Lets the workers finish what was submitted, and waits until they are gone.
    ///
    /// # Blocking
    /// As long as the requests take.
    ///
    /// # Errors
    /// Called in a forked copy.
    pub fn join(&self) -> Result<(), EngineError> {
        self.engine.close()?;
        self.wait_until_over()
    }

    /// Ends everything now: pending requests fail, workers are terminated.
    ///
    /// # Errors
    /// Called in a forked copy.
    pub fn terminate(&self) -> Result<(), EngineError> {
        self.engine.terminate()?;
        self.wait_until_over()
    }

    fn wait_until_over(&self) -> Result<(), EngineError> {
        let over = self.engine.over()?;
        wait(&self.engine, &over, Deadline::Never)?;
        let service = self.service.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(service) = service {
            // A service thread that has panicked has nothing left to do either.
            let _ = service.join();
        }
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Refused only in a forked copy, which has nothing to end.
        let _ = self.terminate();
    }
}

impl Pending {
    /// Waits for the response, for `timeout` at most. The response is handed out once.
    ///
    /// # Blocking
    /// Until there is one, or the time is up.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Vec<u8>, RequestError> {
        let deadline = timeout.map_or(Deadline::Never, |t| Deadline::At(crate::sys::now().after(t)));
        if !wait(&self.engine, &self.job, deadline)? {
            return Err(RequestError::TimedOut);
        }
        match self.job.take() {
            Some((_, Verdict::Value(message))) => Ok(message.to_vec()),
            Some((_, Verdict::Error(message))) => Err(RequestError::Handler(message.to_vec())),
            Some((_, Verdict::Failed(report))) => Err(RequestError::Ended(report)),
            None => Err(RequestError::TimedOut),
        }
    }

    /// Whether there is a response.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.job.is_done()
    }
}

/// Waits for a job. False: the deadline passed first.
fn wait(engine: &Engine, job: &Arc<Job>, deadline: Deadline) -> Result<bool, EngineError> {
    if job.is_done() {
        return Ok(true);
    }
    let mut waiting = engine.wait(job)?;
    if waiting.spin() {
        return Ok(true);
    }
    loop {
        match waiting.sleep(deadline, None)? {
            Outcome::News => return Ok(true),
            Outcome::TimedOut => return Ok(false),
            Outcome::Interrupted => {}
        }
    }
}

/// What a worker is made of.
struct Craft {
    handler: Arc<Handler>,
    /// Requests after which it leaves.
    share: Option<u32>,
    /// The signal mask of whoever made the pool.
    open: Mask,
}

/// Does what the engine asks for: starts workers.
fn serve(engine: &Engine, craft: &Craft, event: &Event) {
    if let Event::Start(id) = event
        && start(engine, craft, *id).is_err()
    {
        // Refused only in a forked copy, where nobody waits for the worker.
        let _ = engine.not_started(*id);
    }
}

fn start(engine: &Engine, craft: &Craft, id: WorkerId) -> Result<(), EngineError> {
    let failed = |doing| move |source: io::Error| EngineError::Os { doing, source };
    let (seat, hub) = engine.seat(id)?;
    let parent = Arc::new(Parent::own().map_err(failed("open a descriptor of this process"))?);
    match fork().map_err(failed("fork a worker"))? {
        Forked::Child => {
            // FORK: whatever happens, the child does not return into the parent's frames.
            super::engine::close_inherited(&seat, &hub);
            // The service thread is deaf to signals; a worker has to hear when it is to end.
            let _ = craft.open.apply();
            let worked = catch_unwind(AssertUnwindSafe(|| {
                parent
                    .watch(Orphan::Ends)
                    .map_err(|source| WorkerError::Os { doing: "watch the parent", source })?;
                let mut runtime = Runtime::new(Arc::clone(&seat), Arc::clone(&hub), engine.may_spin())?;
                work(&mut runtime, craft.handler.as_ref(), craft.share)
            }));
            exit_now(i32::from(!matches!(worked, Ok(Ok(())))))
        }
        Forked::Parent(child) => {
            // Without a descriptor left for it, the worker is known by its number.
            let child = Child::adopt(child).or_else(|_| Child::adopt_by_number(child));
            let child = child.map_err(failed("watch a worker"))?;
            engine.started(seat, Arc::new(child), &format!("worker-{}", id.generation))
        }
    }
}

/// The worker's life: until it is told to leave, or has done its share.
fn work(runtime: &mut Runtime, handler: &Handler, mut share: Option<u32>) -> Result<(), WorkerError> {
    runtime.up();
    let mut bytes = Vec::new();
    loop {
        match runtime.next(&mut bytes)? {
            Some(Order::Task { key, shared, .. }) => {
                let request = match shared {
                    Some(lease) => Message::Shared(lease).to_vec(),
                    None => std::mem::take(&mut bytes),
                };
                share = share.map(|left| left.saturating_sub(1));
                let last = share == Some(0);
                let response = catch_unwind(AssertUnwindSafe(|| handler(&request)));
                let response = response.unwrap_or_else(|_| Err(b"the handler panicked".to_vec()));
                let (error, answer) = match response {
                    Ok(answer) => (false, answer),
                    Err(answer) => (true, answer),
                };
                if answer.len() > INLINE_MOST
                    && let Some(placed) = runtime.place(answer.len())?
                {
                    runtime.fill(&placed, 0, &answer);
                    runtime.publish_placed(key, error, last, placed)?;
                } else {
                    runtime.publish(key, error, last, &answer)?;
                }
                if last {
                    return Ok(());
                }
            }
            Some(Order::Define(_)) => {}
            Some(Order::Leave) => return Ok(()),
            None => {
                if !runtime.spin() {
                    runtime.sleep(None)?;
                }
            }
        }
    }
}
