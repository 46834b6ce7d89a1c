//! `Pump`: an engine whose owner drives it, on the thread of an event loop. Callbacks are called from here, one after the
//! other, with no Python of ours in between.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use billiard::pool::Job;
use billiard::pool::engine::Event;
use billiard::sys::poll::Woken;
use pyo3::exceptions::{PyException, PyMemoryError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::engine::Engine;
use crate::errors::IntoPyErr;
use crate::handles::ApplyResult;
use crate::python;
use crate::shared::Shared;
use crate::wait::{self, Blocking, Wait};

/// Drives an engine in place of its background thread and of the pool's service thread.
///
/// Nobody else may run the engine. Everything is called on the thread that calls `pump`.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Pump {
    engine: Py<Engine>,
}

impl Pump {
    fn shared(&self) -> &Arc<Shared> {
        self.engine.get().shared()
    }

    /// Lets whoever it concerns hear of an event.
    fn hear(
        &self,
        py: Python<'_>,
        event: Event,
        handle: &Bound<'_, PyAny>,
        release: &Bound<'_, PyAny>,
        settle: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let shared = self.shared();
        match event {
            Event::Accepted { job, pid, at, .. } => {
                let Some(result) = shared.result(py, &job) else { return Ok(()) };
                result.get().call(py, |e| e.accept_callback.as_ref(), (pid, at.as_secs_f64()))
            }
            Event::SoftLimit { job, limit, .. } => {
                let Some(result) = shared.result(py, &job) else { return Ok(()) };
                tell_limit(&result, true, limit.as_secs_f64())
            }
            Event::Done(job) => {
                let Some(result) = shared.release(job.token()) else { return Ok(()) };
                let result = result.into_bound(py).cast_into::<ApplyResult>()?;
                // First, so that the next job is on its way while the callbacks run.
                if !release.is_none() {
                    guarded(py, release.call0().map(drop), None)?;
                }
                hear_end(&result, handle, settle)
            }
            other => match self.engine.get().tell(py, other)? {
                Some(told) => handle.call1((told,)).map(drop),
                None => Ok(()),
            },
        }
    }
}

/// A job has ended: first of a hard limit, so that what is known about the failure is the last word.
fn hear_end(
    result: &Bound<'_, ApplyResult>,
    handle: &Bound<'_, PyAny>,
    settle: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let (py, job) = (result.py(), result.get());
    let (success, value) = job.settled(py)?;
    if success {
        return job.call(py, |e| e.callback.as_ref(), (value,));
    }
    let value = if settle.is_none() { value } else { settle.call1((result, value))?.unbind() };
    if let Some(limit) = job.limit_passed(py)? {
        let stack = python::tasks(py, "raisable")?.call1((&value,))?.getattr(intern!(py, "last_stack"))?;
        guarded(py, handle.call1((("overdue", result, stack),)).map(drop), None)?;
        tell_limit(result, false, limit)?;
    }
    job.call(py, |e| e.error_callback.as_ref(), (value,))
}

fn tell_limit(result: &Bound<'_, ApplyResult>, soft: bool, limit: f64) -> PyResult<()> {
    let py = result.py();
    let told = PyDict::new(py);
    told.set_item(intern!(py, "soft"), soft)?;
    told.set_item(intern!(py, "timeout"), python::tasks(py, "as_given")?.call1((limit,))?)?;
    result.get().call_with(py, |e| e.timeout_callback.as_ref(), &told)
}

/// What a callback raises is logged, and goes no further unless it has to: whoever drives the engine is above.
pub(crate) fn guarded(
    py: Python<'_>,
    called: PyResult<()>,
    propagate: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let Err(error) = called else { return Ok(()) };
    let named = |classes: &Bound<'_, PyAny>| -> PyResult<bool> {
        let classes: Vec<Bound<'_, PyAny>> = classes.try_iter()?.collect::<PyResult<_>>()?;
        error.value(py).is_instance(PyTuple::new(py, classes)?.as_any())
    };
    let goes_on = !error.is_instance_of::<PyException>(py)
        || error.is_instance_of::<PyMemoryError>(py)
        || propagate.is_some_and(|classes| named(classes).unwrap_or(true));
    if goes_on {
        return Err(error);
    }
    python::tasks(py, "callback_failed")?.call1((error.value(py),)).map(drop)
}

#[pymethods]
impl Pump {
    /// Drive `engine` from now on.
    #[new]
    fn new(engine: Py<Engine>) -> PyResult<Self> {
        engine.get().shared().engine.drive().map_err(IntoPyErr::into_py_err)?;
        Ok(Self { engine })
    }

    /// The descriptor that is readable when `pump` has something to do.
    fn fileno(&self) -> i32 {
        self.shared().engine.descriptor().as_raw_fd()
    }

    /// Look after everything that is due, and call whoever wants to hear of it. Never waits.
    ///
    /// Args:
    ///     handle: Called with each event that is not about a job: a tuple whose first item names it.
    ///     release: Called for each job that has ended, before its callbacks; None if nobody counts them.
    ///     settle: Called with the result and the `ExceptionInfo` of each job that has failed; answers the one that is
    ///         told. None: it is told as it is.
    ///
    /// Returns:
    ///     How many events there were.
    ///
    /// Raises:
    ///     BaseException: What a callback has raised that is no `Exception`, or a `MemoryError`, or named by the job's
    ///         `callbacks_propagate`; or what `handle` has raised. The rest is for the next call.
    fn pump(
        &self,
        py: Python<'_>,
        handle: &Bound<'_, PyAny>,
        release: &Bound<'_, PyAny>,
        settle: &Bound<'_, PyAny>,
    ) -> PyResult<usize> {
        let engine = &self.shared().engine;
        engine.pump().map_err(IntoPyErr::into_py_err)?;
        let mut heard = 0;
        while let Some(event) = engine.take_event() {
            heard += 1;
            if let Err(error) = self.hear(py, event, handle, release, settle) {
                engine.remind();
                return Err(error);
            }
        }
        Ok(heard)
    }

    /// Wait until `pump` has something to do. False: it took longer than `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let deadline = wait::deadline(timeout)?;
        let engine = &self.shared().engine;
        let woken = py.wait_for(|interrupts| {
            engine.idle(deadline, interrupts).map(|woken| match woken {
                Woken::Ready => Wait::Ready(()),
                Woken::TimedOut => Wait::TimedOut,
                Woken::Interrupted => Wait::Interrupted,
            })
        })?;
        Ok(woken.is_some())
    }

    /// Drop what there is to tell about jobs: the owner wants to hear nothing more of those that have ended.
    fn forget(&self) {
        let shared = self.shared();
        for job in shared.engine.forget_jobs() {
            drop(shared.release(job.token()));
        }
        shared.sweep();
    }

    /// Take jobs back that no worker has begun: they will not run, and none of their callbacks is called.
    ///
    /// Args:
    ///     results: The results that `submit` has returned; None takes back all jobs.
    ///
    /// Returns:
    ///     The results of those jobs that were taken back. The others run, or have ended.
    #[pyo3(signature = (results = None))]
    fn withdraw(&self, py: Python<'_>, results: Option<Vec<Py<ApplyResult>>>) -> PyResult<Vec<Py<PyAny>>> {
        let shared = self.shared();
        let wanted: Option<Vec<&Arc<Job>>> =
            results.as_ref().map(|results| results.iter().map(|result| result.get().job()).collect());
        let jobs = shared
            .engine
            .withdraw(|job| {
                wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|one| std::ptr::eq(&***one, job)))
            })
            .map_err(IntoPyErr::into_py_err)?;
        let withdrawn = jobs.iter().filter_map(|job| shared.handle(py, job.token())).collect();
        shared.sweep();
        Ok(withdrawn)
    }
}
