//! What submitting returns: `ApplyResult` and `MapResult`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use billiard::pool::{Job, Verdict};
use billiard::sys::{Deadline, Moment};
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use crate::pump::guarded;
use crate::python;
use crate::reports;
use crate::shared::{Shared, decode_chunk};
use crate::wait;

/// What a caller may ask for besides the call itself.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    pub(crate) callback: Option<Py<PyAny>>,
    pub(crate) error_callback: Option<Py<PyAny>>,
    pub(crate) accept_callback: Option<Py<PyAny>>,
    pub(crate) timeout_callback: Option<Py<PyAny>>,
    pub(crate) soft_timeout: Option<f64>,
    pub(crate) timeout: Option<f64>,
    pub(crate) lost_worker_timeout: Option<f64>,
    pub(crate) propagate: Option<Py<PyAny>>,
    pub(crate) correlation_id: Option<Py<PyAny>>,
    /// A slot of the pool's put lock is returned when the job ends.
    pub(crate) slot: bool,
    /// What a report about its loss calls it, if not by the function's name.
    pub(crate) name: Option<Py<PyAny>>,
    /// Chunk size and number of items, if it is the result of a map.
    pub(crate) map: Option<(usize, usize)>,
}

impl Extras {
    fn held(&self) -> impl Iterator<Item = &Py<PyAny>> {
        [
            &self.callback,
            &self.error_callback,
            &self.accept_callback,
            &self.timeout_callback,
            &self.propagate,
            &self.correlation_id,
            &self.name,
        ]
        .into_iter()
        .flatten()
    }
}

#[derive(Debug)]
struct Ended {
    success: bool,
    value: Py<PyAny>,
    /// The hard limit, if that ended it.
    limit: Option<f64>,
}

/// The result of a job, once it is there.
///
/// Made by `Pool.apply_async`. All waiting can be interrupted by signals and gives other threads their turn.
#[pyclass(frozen, subclass, dict, weakref, module = "billiard.pool")]
#[derive(Debug)]
pub(crate) struct ApplyResult {
    shared: Arc<Shared>,
    job: Arc<Job>,
    pool: Py<PyAny>,
    function: Py<PyAny>,
    extras: Option<Box<Extras>>,
    late: Mutex<Option<Box<Late>>>,
    /// Python 3.11 and 3.12 make the instance's `__dict__` before its contents are written, and a collection that starts
    /// right there visits an object of zeros: this says that it is one.
    whole: bool,
}

/// What comes to be known later. Boxed, since a million jobs may be waiting.
#[derive(Debug, Default)]
struct Late {
    ended: Option<Ended>,
    /// The signal that the job was asked to end by.
    signal: Option<Py<PyAny>>,
}

impl ApplyResult {
    pub(crate) const fn new(
        shared: Arc<Shared>,
        job: Arc<Job>,
        pool: Py<PyAny>,
        function: Py<PyAny>,
        extras: Option<Box<Extras>>,
    ) -> Self {
        Self { shared, job, pool, function, extras, late: Mutex::new(None), whole: true }
    }

    fn late(&self) -> MutexGuard<'_, Option<Box<Late>>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) const fn job(&self) -> &Arc<Job> {
        &self.job
    }

    /// Calls what the caller wants called, if there is such a thing; see [`guarded`].
    pub(crate) fn call<'py>(
        &self,
        py: Python<'py>,
        pick: impl FnOnce(&Extras) -> Option<&Py<PyAny>>,
        args: impl PyCallArgs<'py>,
    ) -> PyResult<()> {
        let Some(extras) = self.extras.as_deref() else { return Ok(()) };
        let Some(callback) = pick(extras) else { return Ok(()) };
        let called = callback.bind(py).call1(args).map(drop);
        guarded(py, called, extras.propagate.as_ref().map(|classes| classes.bind(py)))
    }

    /// The same, with keywords.
    pub(crate) fn call_with<'py>(
        &self,
        py: Python<'py>,
        pick: impl FnOnce(&Extras) -> Option<&Py<PyAny>>,
        kwargs: &Bound<'py, PyDict>,
    ) -> PyResult<()> {
        let Some(extras) = self.extras.as_deref() else { return Ok(()) };
        let Some(callback) = pick(extras) else { return Ok(()) };
        let called = callback.bind(py).call((), Some(kwargs)).map(drop);
        guarded(py, called, extras.propagate.as_ref().map(|classes| classes.bind(py)))
    }

    fn map(&self) -> Option<(usize, usize)> {
        self.extra(|e| e.map)
    }

    fn known(&self, py: Python<'_>) -> Option<(bool, Py<PyAny>)> {
        self.late().as_ref()?.ended.as_ref().map(|e| (e.success, e.value.clone_ref(py)))
    }

    /// Success and value of a job that has ended. It is decoded once, by the first thread that asks.
    pub(crate) fn settled(&self, py: Python<'_>) -> PyResult<(bool, Py<PyAny>)> {
        if let Some(known) = self.known(py) {
            return Ok(known);
        }
        let decoded = if self.map().is_some() { self.decode_map(py)? } else { self.decode_one(py)? };
        let Some(decoded) = decoded else {
            // Another thread has taken the bytes and is decoding them: it may need us to give way.
            loop {
                if let Some(known) = self.known(py) {
                    return Ok(known);
                }
                py.detach(std::thread::yield_now);
                py.check_signals()?;
            }
        };
        let mut late = self.late();
        let ended = late.get_or_insert_default().ended.get_or_insert(decoded);
        Ok((ended.success, ended.value.clone_ref(py)))
    }

    fn decode_one(&self, py: Python<'_>) -> PyResult<Option<Ended>> {
        let Some((_, verdict)) = self.job.take() else { return Ok(None) };
        self.decode(py, &verdict).map(Some)
    }

    fn decode(&self, py: Python<'_>, verdict: &Verdict) -> PyResult<Ended> {
        let limit = match verdict {
            Verdict::Failed(report) => reports::passed_limit(report),
            _ => None,
        };
        let what = self.extras.as_deref().and_then(|e| e.name.as_ref()).unwrap_or(&self.function);
        let (success, value) = self.shared.decode(py, &self.job, verdict, what.bind(py))?;
        Ok(Ended { success, value: value.unbind(), limit })
    }

    fn decode_map(&self, py: Python<'_>) -> PyResult<Option<Ended>> {
        let verdicts = self.job.take_batch();
        let empty = self.map().is_some_and(|(_, length)| length == 0);
        if verdicts.is_empty() && !empty {
            return Ok(None);
        }
        if self.job.has_failed() {
            let failed = verdicts.iter().flatten().find(|v| !matches!(v, Verdict::Value(_)));
            if let Some(verdict) = failed {
                return self.decode(py, verdict).map(Some);
            }
        }
        let values = PyList::empty(py);
        for verdict in verdicts.iter().flatten() {
            if let Verdict::Value(message) = verdict
                && let Err(error) = decode_chunk(py, message, &values)
            {
                let value = python::tasks(py, "unreadable_result")?.call1((error,))?.unbind();
                return Ok(Some(Ended { success: false, value, limit: None }));
            }
        }
        Ok(Some(Ended { success: true, value: values.into_any().unbind(), limit: None }))
    }

    fn extra<'a, T>(&'a self, pick: impl FnOnce(&'a Extras) -> Option<T>) -> Option<T> {
        self.extras.as_deref().and_then(pick)
    }

    fn whereabouts(&self) -> Vec<(i32, Moment)> {
        self.shared.engine.whereabouts(&self.job)
    }
}

#[pymethods]
impl ApplyResult {
    /// Wait for the result and return it.
    ///
    /// Args:
    ///     timeout: Seconds to wait; None waits for ever.
    ///
    /// Raises:
    ///     multiprocessing.TimeoutError: There is no result after `timeout` seconds.
    ///     Exception: What the task raised, with the remote traceback as its cause; or why it could not return:
    ///         `WorkerLostError`, `TimeLimitExceeded`, `Terminated`, `RestartFreqExceeded`.
    #[pyo3(signature = (timeout = None))]
    fn get(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        wait::refuse_nan("timeout", timeout)?;
        if !self.job.is_done() {
            let deadline = Deadline::from_seconds(timeout);
            if !self.shared.wait(py, &self.job, deadline)? {
                return Err(PyErr::from_value(python::timeout_error(py)?.call0()?));
            }
        }
        let (success, value) = self.settled(py)?;
        if success {
            return Ok(value);
        }
        Err(PyErr::from_value(python::tasks(py, "raisable")?.call1((value,))?))
    }

    /// Wait until the job has ended, for `timeout` seconds at most.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        wait::refuse_nan("timeout", timeout)?;
        if !self.job.is_done() {
            self.shared.wait(py, &self.job, Deadline::from_seconds(timeout))?;
        }
        Ok(())
    }

    /// Whether the job has ended.
    fn ready(&self) -> bool {
        self.job.is_done()
    }

    /// Whether a worker has begun the job; of a map, whether all items were begun.
    fn accepted(&self) -> bool {
        if self.job.is_done() {
            return self.job.worker().is_some();
        }
        match self.map() {
            Some(_) => self.job.missing() <= self.whereabouts().len() as u64,
            None => self.job.acceptance().is_some() || !self.whereabouts().is_empty(),
        }
    }

    /// Whether the job returned without an exception.
    ///
    /// Raises:
    ///     AssertionError: The job has not ended.
    fn successful(&self, py: Python<'_>) -> PyResult<bool> {
        if !self.job.is_done() {
            return Err(pyo3::exceptions::PyAssertionError::new_err("the job has not ended"));
        }
        Ok(self.settled(py)?.0)
    }

    /// Process ids of the workers that have run the job, or are running it.
    fn worker_pids(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self.whereabouts().into_iter().map(|(pid, _)| pid).collect();
        pids.extend(self.job.worker().filter(|pid| !pids.contains(pid)));
        pids
    }

    /// Let go of the job: nobody will ask for its result.
    fn discard(&self) {
        drop(self.shared.release_handle(&self.job));
    }

    /// Record that the job was asked to end by this signal. `Pool.terminate_job` is what ends it.
    fn terminate(&self, signum: Py<PyAny>) {
        self.late().get_or_insert_default().signal = Some(signum);
    }

    /// Tell the timeout callback, if there is one.
    #[pyo3(signature = (soft = false))]
    fn handle_timeout(slf: &Bound<'_, Self>, soft: bool) -> PyResult<()> {
        python::tasks(slf.py(), "handle_timeout")?.call1((slf, soft)).map(drop)
    }

    /// Call `fun`; an exception is logged and goes no further, unless the job's `callbacks_propagate` names its class.
    #[pyo3(signature = (fun, *args: "Any", **kwargs: "Any"))]
    fn safe_apply_callback(
        slf: &Bound<'_, Self>,
        fun: Bound<'_, PyAny>,
        args: Bound<'_, PyTuple>,
        kwargs: Option<Bound<'_, pyo3::types::PyDict>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let kwargs = kwargs.unwrap_or_else(|| pyo3::types::PyDict::new(py));
        python::tasks(py, "safe_callback")?.call1((slf, fun, args, kwargs)).map(drop)
    }

    /// An exception that `get` has raised knows the frame that called it, and that frame knows us: without this, whoever
    /// catches one keeps the pool for ever. What is locked just now is not garbage. There is nothing to clear: every such
    /// circle goes through an object that can be.
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if !self.whole {
            return Ok(());
        }
        visit.call(&self.pool)?;
        visit.call(&self.function)?;
        if let Some(extras) = self.extras.as_deref() {
            for held in extras.held() {
                visit.call(held)?;
            }
        }
        if let Ok(late) = self.late.try_lock()
            && let Some(late) = late.as_ref()
        {
            visit.call(late.ended.as_ref().map(|ended| &ended.value))?;
            visit.call(&late.signal)?;
        }
        Ok(())
    }

    /// Number of the job.
    #[getter(_job)]
    fn number(&self) -> u64 {
        self.job.id()
    }

    #[getter(_cache)]
    fn cache(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.pool.getattr(py, "_cache")
    }

    #[getter(_pool)]
    fn pool(&self, py: Python<'_>) -> Py<PyAny> {
        self.pool.clone_ref(py)
    }

    #[getter(_function)]
    fn function(&self, py: Python<'_>) -> Py<PyAny> {
        self.function.clone_ref(py)
    }

    #[getter(_callback)]
    fn callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.extra(|e| e.callback.as_ref().map(|c| c.clone_ref(py)))
    }

    #[getter(_error_callback)]
    fn error_callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.extra(|e| e.error_callback.as_ref().map(|c| c.clone_ref(py)))
    }

    #[getter(_accept_callback)]
    fn accept_callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.extra(|e| e.accept_callback.as_ref().map(|c| c.clone_ref(py)))
    }

    #[getter(_timeout_callback)]
    fn timeout_callback(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.extra(|e| e.timeout_callback.as_ref().map(|c| c.clone_ref(py)))
    }

    #[getter(_callbacks_propagate)]
    fn callbacks_propagate(&self, py: Python<'_>) -> Py<PyAny> {
        self.extra(|e| e.propagate.as_ref().map(|c| c.clone_ref(py)))
            .unwrap_or_else(|| PyTuple::empty(py).into_any().unbind())
    }

    /// What the caller named the job.
    #[getter]
    fn correlation_id(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.extra(|e| e.correlation_id.as_ref().map(|c| c.clone_ref(py)))
    }

    #[getter(_timeout)]
    fn timeout(&self) -> Option<f64> {
        self.extra(|e| e.timeout)
    }

    #[getter(_soft_timeout)]
    fn soft_timeout(&self) -> Option<f64> {
        self.extra(|e| e.soft_timeout)
    }

    #[getter(_lost_worker_timeout)]
    fn lost_worker_timeout(&self) -> Option<f64> {
        self.extra(|e| e.lost_worker_timeout)
    }

    #[getter(_holds_slot)]
    fn holds_slot(&self) -> bool {
        self.extra(|e| Some(e.slot)).unwrap_or(false)
    }

    #[getter(_accepted)]
    fn is_accepted(&self) -> bool {
        self.accepted()
    }

    #[getter(_worker_pid)]
    fn worker_pid(&self) -> Option<i32> {
        self.worker_pids().first().copied()
    }

    #[getter(_time_accepted)]
    fn time_accepted(&self) -> Option<f64> {
        let told = self.job.acceptance().map(|(_, at)| Moment(at));
        told.or_else(|| self.whereabouts().first().map(|(_, at)| *at)).map(Moment::as_secs_f64)
    }

    #[getter(_terminated)]
    fn terminated(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.late().as_ref()?.signal.as_ref().map(|s| s.clone_ref(py))
    }

    #[getter(_cancelled)]
    const fn cancelled(&self) -> bool {
        false
    }

    #[getter(_success)]
    fn success(&self, py: Python<'_>) -> PyResult<Option<bool>> {
        if self.job.is_done() { self.settled(py).map(|(success, _)| Some(success)) } else { Ok(None) }
    }

    /// The value, or the `ExceptionInfo`, of a job that has ended.
    #[getter(_value)]
    fn value(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if self.job.is_done() { self.settled(py).map(|(_, value)| Some(value)) } else { Ok(None) }
    }

    /// Seconds of the hard limit, if that is what ended the job.
    #[getter(_limit_passed)]
    pub(crate) fn limit_passed(&self, py: Python<'_>) -> PyResult<Option<f64>> {
        if !self.job.is_done() {
            return Ok(None);
        }
        self.settled(py)?;
        Ok(self.late().as_ref().and_then(|late| late.ended.as_ref()?.limit))
    }

    #[classattr]
    #[pyo3(name = "_worker_lost")]
    const WORKER_LOST: Option<bool> = None;
    #[classattr]
    #[pyo3(name = "_write_to")]
    const WRITE_TO: Option<bool> = None;
    #[classattr]
    #[pyo3(name = "_scheduled_for")]
    const SCHEDULED_FOR: Option<bool> = None;

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let this = slf.get();
        let flag = |flag: bool| if flag { "True" } else { "False" };
        Ok(format!(
            "<{}: {} ack:{} ready:{}>",
            slf.get_type().name()?,
            this.job.id(),
            flag(this.accepted()),
            flag(this.job.is_done())
        ))
    }
}

/// The result of a map: a list, in the order of the input.
///
/// Made by `Pool.map_async` and `Pool.starmap_async`. The first chunk that fails decides the error and ends the job.
#[pyclass(frozen, subclass, extends = ApplyResult, module = "billiard.pool")]
#[derive(Debug)]
pub(crate) struct MapResult;

#[pymethods]
impl MapResult {
    #[getter(_chunksize)]
    fn chunksize(slf: &Bound<'_, Self>) -> usize {
        slf.as_super().get().map().map_or(1, |(chunk, _)| chunk)
    }

    #[getter(_length)]
    fn length(slf: &Bound<'_, Self>) -> usize {
        slf.as_super().get().map().map_or(0, |(_, length)| length)
    }

    /// Chunks that have not ended.
    #[getter(_number_left)]
    fn number_left(slf: &Bound<'_, Self>) -> u64 {
        slf.as_super().get().job.missing()
    }
}
