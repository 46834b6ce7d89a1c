//! The one door for everything that may block: it detaches from the interpreter, and signal handlers run in time.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

pub(crate) use billiard::sys::Wait;
use billiard::sys::signal::Mask;
use billiard::sys::{self, Alarm, Deadline, Interrupts, SignalPage, SignalPipe};
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

pub(crate) trait Blocking {
    /// Calls `step`, detached, until it is ready or its deadline has passed (`None`). The deadline belongs to the step and
    /// is fixed before the first call.
    ///
    /// The step is told what else has to end its sleep: on the main thread signals, whichever thread the system has them
    /// delivered to. An exception raised by a handler ends the wait. The first sleep is short and told of nothing, which spares
    /// six calls of the kernel: most waits are over before, and a signal is handled at its end.
    fn wait_for<T, E, F>(self, step: F) -> PyResult<Option<T>>
    where
        T: Send,
        E: IntoPyErr + Send,
        F: FnMut(Option<Interrupts<'_>>) -> Result<Wait<T>, E> + Send;

    /// The same for a step that sleeps on words of memory; on the main thread it has an [`Alarm`] meanwhile.
    fn wait_on_word<T, E, F>(self, step: F) -> PyResult<Option<T>>
    where
        T: Send,
        E: IntoPyErr + Send,
        F: FnMut() -> Result<Wait<T>, E> + Send;

    /// The same for a step that must come to its end: the first exception of a handler is answered beside its result.
    fn finish_on_word<T, E, F>(self, step: F) -> PyResult<(Option<T>, Option<PyErr>)>
    where
        T: Send,
        E: IntoPyErr + Send,
        F: FnMut() -> Result<Wait<T>, E> + Send;
}

/// So long at first the main thread sleeps on a word without having anybody tell of signals, which takes a microsecond to
/// set up: most waits are over before.
const UNHEARD: Duration = Duration::from_millis(2);
/// How often it looks where nobody can tell.
const GLANCE: Duration = Duration::from_millis(50);

impl Blocking for Python<'_> {
    fn wait_for<T, E, F>(self, mut step: F) -> PyResult<Option<T>>
    where
        T: Send,
        E: IntoPyErr + Send,
        F: FnMut(Option<Interrupts<'_>>) -> Result<Wait<T>, E> + Send,
    {
        let mut brief = true;
        loop {
            self.check_signals()?;
            let done = if std::mem::take(&mut brief) {
                self.detach(|| step(Some(Interrupts::Briefly)))
            } else if sys::thread::is_main() {
                let listening = Listening::<SignalPipe>::begin(self);
                // What has come since the first look.
                self.check_signals()?;
                let interrupts = listening.recorder().map_or(Interrupts::Glances, |pipe| pipe.interrupts());
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

    fn wait_on_word<T, E, F>(self, step: F) -> PyResult<Option<T>>
    where
        T: Send,
        E: IntoPyErr + Send,
        F: FnMut() -> Result<Wait<T>, E> + Send,
    {
        on_word(self, step, Err)
    }

    fn finish_on_word<T, E, F>(self, step: F) -> PyResult<(Option<T>, Option<PyErr>)>
    where
        T: Send,
        E: IntoPyErr + Send,
        F: FnMut() -> Result<Wait<T>, E> + Send,
    {
        let mut raised = None;
        let done = on_word(self, step, |error| {
            raised.get_or_insert(error);
            Ok(())
        })?;
        Ok((done, raised))
    }
}

/// `raised` decides whether the exception of a handler ends the wait.
fn on_word<T, E>(
    py: Python<'_>,
    mut step: impl FnMut() -> Result<Wait<T>, E> + Send,
    mut raised: impl FnMut(PyErr) -> PyResult<()>,
) -> PyResult<Option<T>>
where
    T: Send,
    E: IntoPyErr + Send,
{
    let main = sys::thread::is_main();
    let mut heard = false;
    loop {
        py.check_signals().or_else(&mut raised)?;
        let done = if !main {
            py.detach(&mut step)
        } else if !std::mem::replace(&mut heard, true) {
            let alarm = Alarm::Look(sys::now().after(UNHEARD));
            py.detach(|| alarm.over(&mut step))
        } else {
            let listening = Listening::<SignalPage>::begin(py);
            // What has come since the first look.
            py.check_signals().or_else(&mut raised)?;
            let alarm = match listening.recorder() {
                Some(page) => Alarm::Page(Arc::clone(page)),
                None => Alarm::Look(sys::now().after(GLANCE)),
            };
            py.detach(|| alarm.over(&mut step))
        };
        match done {
            Ok(Wait::Ready(value)) => return Ok(Some(value)),
            Ok(Wait::TimedOut) => return Ok(None),
            Ok(Wait::Interrupted) => {}
            Err(error) => return Err(error.into_py_err()),
        }
    }
}

/// Where the interpreter's signal handler writes while the main thread sleeps.
trait Recorder: Sized + 'static {
    fn new() -> std::io::Result<Self>;
    /// The one of this process. Locked for moments only, by whoever is attached: nobody forks meanwhile.
    fn own() -> &'static Mutex<Option<Arc<Self>>>;
    fn is_mine(&self) -> bool;
    fn writer(&self) -> RawFd;
    fn drain(&self, to: Option<RawFd>);
}

macro_rules! recorder {
    ($kind:ty) => {
        impl Recorder for $kind {
            fn new() -> std::io::Result<Self> {
                Self::new()
            }

            fn own() -> &'static Mutex<Option<Arc<Self>>> {
                static OWN: Mutex<Option<Arc<$kind>>> = Mutex::new(None);
                &OWN
            }

            fn is_mine(&self) -> bool {
                self.is_mine()
            }

            fn writer(&self) -> RawFd {
                self.writer()
            }

            fn drain(&self, to: Option<RawFd>) {
                self.drain(to);
            }
        }
    };
}

recorder!(SignalPipe);
recorder!(SignalPage);

/// Makes what a wait needs, so that a wait need not.
pub(crate) fn prepare() -> std::io::Result<()> {
    own::<SignalPipe>()?;
    own::<SignalPage>().map(drop)
}

fn own<R: Recorder>() -> std::io::Result<Arc<R>> {
    let mut own = R::own().lock().unwrap_or_else(PoisonError::into_inner);
    match &*own {
        Some(recorder) if recorder.is_mine() => Ok(Arc::clone(recorder)),
        _ => {
            let made = Arc::new(R::new()?);
            *own = Some(Arc::clone(&made));
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

/// While it lives, the interpreter's signal handler, which runs on any thread, writes to our recorder. What it has written
/// goes to the program's own wake-up descriptor, if there is one, afterwards.
struct Listening<'py, R: Recorder> {
    py: Python<'py>,
    /// The recorder, and what was there before. `None`: no descriptor is left, or this is no interpreter that handles signals.
    recorder: Option<(Arc<R>, RawFd)>,
    /// A handler that runs at a second look may wait itself: the outermost wait knows what the program had set.
    outermost: bool,
}

impl<'py, R: Recorder> Listening<'py, R> {
    fn begin(py: Python<'py>) -> Self {
        let recorder = own::<R>().ok().and_then(|recorder| {
            let before = set_wakeup_fd(py, recorder.writer()).ok()?;
            Some((recorder, before))
        });
        let mut outermost = false;
        if let Some((recorder, before)) = &recorder {
            // Relaxed: only the main thread listens.
            let first = BEFORE.compare_exchange(NOT_LISTENING, *before, Ordering::Relaxed, Ordering::Relaxed);
            outermost = first.is_ok();
            if !outermost {
                // What the outer wait was told of, the handlers see to at the look that comes next.
                recorder.drain(of_the_program());
            }
        }
        Self { py, recorder, outermost }
    }

    fn recorder(&self) -> Option<&Arc<R>> {
        self.recorder.as_ref().map(|(recorder, _)| recorder)
    }
}

/// Where the program wants to be told of signals.
fn of_the_program() -> Option<RawFd> {
    let before = BEFORE.load(Ordering::Relaxed);
    (before >= 0).then_some(before)
}

impl<R: Recorder> Drop for Listening<'_, R> {
    fn drop(&mut self) {
        let Some((recorder, before)) = &self.recorder else { return };
        // A descriptor that was closed meanwhile is refused; then there is none.
        let back = set_wakeup_fd(self.py, *before).or_else(|_| set_wakeup_fd(self.py, -1));
        debug_assert!(back.is_ok(), "no wake-up descriptor is always possible");
        if recorder.is_mine() {
            if *before != recorder.writer() {
                recorder.drain(of_the_program());
            }
            if self.outermost {
                BEFORE.store(NOT_LISTENING, Ordering::Relaxed);
            }
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
