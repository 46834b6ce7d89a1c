//! The one door for everything that may block: it detaches from the interpreter, and signal handlers run in time.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::Duration;

use billiard::sys;
use billiard::sys::Deadline;
use billiard::sys::signal::{Blocked, Mask};
use pyo3::prelude::*;

use crate::errors::IntoPyErr;

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

pub(crate) trait Blocking {
    /// Calls `step`, detached, until it is ready or its deadline has passed (`None`). The deadline belongs to the step and
    /// is fixed before the first call.
    ///
    /// On the main thread the step gets the signal mask it must sleep with (`ppoll` takes one): all signals are blocked from
    /// the moment their handlers had their chance until then, so that none is lost in between. An exception raised by a
    /// handler ends the wait.
    fn wait_for<T, E, F>(self, step: F) -> PyResult<Option<T>>
    where
        T: Send,
        E: IntoPyErr + Send,
        F: FnMut(Option<&Mask>) -> Result<Wait<T>, E> + Send;

    /// The same for a step that sleeps on a word of memory, which cannot open the signal mask in the same instant. A signal
    /// that arrives between the look for signals and the sleep does not end the sleep. So the main thread sleeps in slices,
    /// of which each is twice as long as the one before: a signal is late only if it hits an instant out of the time that was
    /// waited already, by no more than that time, and a long wait wakes up hardly ever.
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
        F: FnMut(Option<&Mask>) -> Result<Wait<T>, E> + Send,
    {
        let main = sys::thread::is_main();
        loop {
            // Handlers run here, with the program's own mask; the second look below only finds what came since.
            self.check_signals()?;
            let done = if main {
                let blocked = Blocked::new().map_err(IntoPyErr::into_py_err)?;
                let open = *blocked.before();
                let _note = Closed::note(open);
                self.check_signals()?;
                self.detach(|| step(Some(&open)))
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
}

thread_local! {
    static PROGRAM_MASK: Cell<Option<Mask>> = const { Cell::new(None) };
}

/// Remembers the program's mask while ours is in force.
struct Closed(Option<Mask>);

impl Closed {
    fn note(open: Mask) -> Self {
        // A handler that runs with our mask may wait itself: then the outermost mask is the program's.
        let before = PROGRAM_MASK.get();
        PROGRAM_MASK.set(before.or(Some(open)));
        Self(before)
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        PROGRAM_MASK.set(self.0);
    }
}

/// The mask of the calling thread, as the program knows it, even while ours is in force.
pub(crate) fn program_mask() -> PyResult<Mask> {
    PROGRAM_MASK.get().map_or_else(Mask::current, Ok).map_err(IntoPyErr::into_py_err)
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

/// Gives a forked child the program's signal mask, in case a signal handler forked while ours was in force.
pub(crate) fn open_signals_in_child() {
    if let Some(mask) = PROGRAM_MASK.take() {
        // Restoring a mask that the kernel itself gave us cannot fail.
        let _ = mask.apply();
    }
}
