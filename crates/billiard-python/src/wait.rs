//! The one door for everything that may block: it detaches from the interpreter, and signal handlers run in time.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use billiard::sync::Outcome;
use billiard::sys::poll::Woken;
use billiard::sys::signal::Mask;
use billiard::sys::{self, Deadline, Interrupts, SignalPipe};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

use crate::errors::IntoPyErr;

/// Refuses what is no time at all.
pub(crate) fn refuse_nan(name: &str, seconds: Option<f64>) -> PyResult<()> {
    match seconds {
        Some(s) if s.is_nan() => {
            Err(PyValueError::new_err(format!("{name} must be a number of seconds or None, not nan")))
        }
        _ => Ok(()),
    }
}

/// When a wait ends that was given a `timeout`: None means never, what is not positive that a look is all.
pub(crate) fn deadline(timeout: Option<f64>) -> PyResult<Deadline> {
    refuse_nan("timeout", timeout)?;
    Ok(Deadline::from_seconds(timeout))
}

/// One attempt to wait.
#[derive(Debug)]
pub(crate) enum Wait<T> {
    /// What was waited for.
    Ready(T),
    /// The deadline passed first.
    TimedOut,
    /// A signal arrived: its handler runs, then comes another attempt with the same deadline.
    Interrupted,
}

impl From<Woken> for Wait<()> {
    fn from(woken: Woken) -> Self {
        match woken {
            Woken::Ready => Self::Ready(()),
            Woken::TimedOut => Self::TimedOut,
            Woken::Interrupted => Self::Interrupted,
        }
    }
}

pub(crate) trait Blocking {
    /// Calls `step`, detached, until it is ready or its deadline has passed (`None`). The deadline belongs to the step and
    /// is fixed before the first call.
    ///
    /// On the main thread the step is told what else has to end its sleep: signals, whichever thread the system has them
    /// delivered to. An exception raised by a handler ends the wait.
    fn wait_for<T, E, F>(self, step: F) -> PyResult<Option<T>>
    where
        T: Send,
        E: IntoPyErr + Send,
        F: FnMut(Option<Interrupts<'_>>) -> Result<Wait<T>, E> + Send;

    /// The same for a step that sleeps on a word of memory, where no descriptor can tell of signals. One that arrives just
    /// before it falls asleep is handled when the step wakes up by itself to look around, or sooner.
    fn wait_open<T, E, F>(self, step: F) -> PyResult<Option<T>>
    where
        T: Send,
        E: IntoPyErr + Send,
        F: FnMut() -> Result<Outcome<T>, E> + Send;

    /// The same for a step that sleeps on a word of memory, where no descriptor can tell of signals. One that arrives between
    /// the look for signals and the sleep does not end the sleep. So the main thread sleeps in slices, of which each is twice
    /// as long as the one before: a signal is late only if it hits an instant out of the time that was waited already, by no
    /// more than that time, and a long wait wakes up hardly ever.
    fn wait_on_word<T, E, F>(self, deadline: Deadline, step: F) -> PyResult<Option<T>>
    where
        T: Send,
        E: IntoPyErr + Send,
        F: FnMut(Deadline) -> Result<Wait<T>, E> + Send;
}

const FIRST_SLICE: Duration = Duration::from_millis(5);
const LONGEST_SLICE: Duration = Duration::from_secs(60);

impl Blocking for Python<'_> {
    fn wait_for<T, E, F>(self, mut step: F) -> PyResult<Option<T>>
    where
        T: Send,
        E: IntoPyErr + Send,
        F: FnMut(Option<Interrupts<'_>>) -> Result<Wait<T>, E> + Send,
    {
        let main = sys::thread::is_main();
        loop {
            self.check_signals()?;
            let done = if main {
                let listening = Listening::begin(self);
                // What has come since the first look.
                self.check_signals()?;
                let interrupts = listening.interrupts();
                self.detach(|| step(Some(interrupts)))
            } else {
                self.detach(|| step(None))
            };
            match done {
                Ok(Wait::Ready(value)) => return Ok(Some(value)),
                Ok(Wait::TimedOut) => return Ok(None),
                Ok(Wait::Interrupted) => {}
                Err(error) => return Err(error.into_py_err()),
            }
        }
    }

    fn wait_on_word<T, E, F>(self, deadline: Deadline, mut step: F) -> PyResult<Option<T>>
    where
        T: Send,
        E: IntoPyErr + Send,
        F: FnMut(Deadline) -> Result<Wait<T>, E> + Send,
    {
        let main = sys::thread::is_main();
        let mut slice = FIRST_SLICE;
        loop {
            self.check_signals()?;
            let until = if main { deadline.or_after(slice) } else { deadline };
            match self.detach(|| step(until)) {
                Ok(Wait::Ready(value)) => return Ok(Some(value)),
                Ok(Wait::TimedOut) if until == deadline || deadline.passed() => return Ok(None),
                Ok(Wait::TimedOut) => slice = (slice * 2).min(LONGEST_SLICE),
                Ok(Wait::Interrupted) => {}
                Err(error) => return Err(error.into_py_err()),
            }
        }
    }

    fn wait_open<T, E, F>(self, mut step: F) -> PyResult<Option<T>>
    where
        T: Send,
        E: IntoPyErr + Send,
        F: FnMut() -> Result<Outcome<T>, E> + Send,
    {
        loop {
            self.check_signals()?;
            match self.detach(&mut step) {
                Ok(Outcome::Done(value)) => return Ok(Some(value)),
                Ok(Outcome::TimedOut) => return Ok(None),
                Ok(Outcome::Interrupted) => {}
                Err(error) => return Err(error.into_py_err()),
            }
        }
    }
}

/// The pipe of this process. Locked for moments only, by whoever is attached: nobody forks meanwhile.
static PIPE: Mutex<Option<Arc<SignalPipe>>> = Mutex::new(None);

/// Makes the pipe, so that a wait need not.
pub(crate) fn prepare() -> std::io::Result<()> {
    pipe().map(drop)
}

fn pipe() -> std::io::Result<Arc<SignalPipe>> {
    let mut pipe = PIPE.lock().unwrap_or_else(PoisonError::into_inner);
    match &*pipe {
        Some(pipe) if pipe.is_mine() => Ok(Arc::clone(pipe)),
        _ => {
            let made = Arc::new(SignalPipe::new()?);
            *pipe = Some(Arc::clone(&made));
            Ok(made)
        }
    }
}

fn set_wakeup_fd(py: Python<'_>, fd: RawFd) -> PyResult<RawFd> {
    static SET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let set = SET.get_or_try_init(py, || py.import("signal")?.getattr("set_wakeup_fd").map(Bound::unbind))?;
    set.bind(py).call1((fd,))?.extract()
}

/// The wake-up descriptor that the program has set, while ours is in its place.
static BEFORE: AtomicI32 = AtomicI32::new(NOT_LISTENING);
const NOT_LISTENING: RawFd = RawFd::MIN;

/// Gives a forked child the program's wake-up descriptor back, in case it was forked while the main thread waited.
pub(crate) fn stop_listening_in_child(py: Python<'_>) {
    let before = BEFORE.swap(NOT_LISTENING, Ordering::Relaxed);
    if before != NOT_LISTENING {
        // A descriptor that was closed meanwhile is refused; then there is none.
        let _ = set_wakeup_fd(py, before).or_else(|_| set_wakeup_fd(py, -1));
    }
}

/// While it lives, the interpreter's signal handler, which runs on any thread, writes into our pipe. What it has written
/// goes to the program's own wake-up descriptor, if there is one, afterwards.
struct Listening<'py> {
    py: Python<'py>,
    /// The pipe, and what was there before. `None`: no descriptor is left, or this is no interpreter that handles signals.
    pipe: Option<(Arc<SignalPipe>, RawFd)>,
}

impl<'py> Listening<'py> {
    fn begin(py: Python<'py>) -> Self {
        let pipe = pipe().ok().and_then(|pipe| {
            let before = set_wakeup_fd(py, pipe.writer()).ok()?;
            // A handler that runs at the second look may wait itself: then the outermost knows what was there before.
            if before != pipe.writer() {
                BEFORE.store(before, Ordering::Relaxed);
            }
            Some((pipe, before))
        });
        Self { py, pipe }
    }

    fn interrupts(&self) -> Interrupts<'_> {
        self.pipe.as_ref().map_or(Interrupts::Glances, |(pipe, _)| pipe.interrupts())
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        let Some((pipe, before)) = &self.pipe else { return };
        // A descriptor that was closed meanwhile is refused; then there is none.
        let back = set_wakeup_fd(self.py, *before).or_else(|_| set_wakeup_fd(self.py, -1));
        debug_assert!(back.is_ok(), "no wake-up descriptor is always possible");
        if *before != pipe.writer() && pipe.is_mine() {
            BEFORE.store(NOT_LISTENING, Ordering::Relaxed);
            pipe.drain((*before >= 0).then_some(*before));
        }
    }
}

static FIRST_MASK: OnceLock<Mask> = OnceLock::new();

/// Remembers the mask of the thread that imports the module.
pub(crate) fn note_first_mask() {
    if let Ok(mask) = Mask::current() {
        let _ = FIRST_MASK.set(mask);
    }
}

/// The mask with which the module was imported: what a child is to begin with, whichever thread has it started.
pub(crate) fn first_mask() -> Mask {
    FIRST_MASK.get().copied().unwrap_or_else(Mask::none)
}
