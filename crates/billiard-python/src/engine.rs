//! `Engine`: the pool's Rust side, as `billiard.pool.Pool` holds it.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use billiard::pool::engine::{self, EngineError, Event, Options, Signals};
use billiard::pool::scheduler::{Limits, Phase, RestartPolicy, WorkerId};
use billiard::pool::{Message, Notify, Shape, Verdict};
use billiard::sys::{ExitStatus, Moment};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use crate::calls::Packer;
use crate::codec::Encoder;
use crate::errors::IntoPyErr;
use crate::handles::{ApplyResult, Extras, MapResult};
use crate::process::Child;
use crate::shared::{Shared, encode_error, next_job};
use crate::stream::{self, Feeder, IMapIterator, IMapUnorderedIterator, Stream};
use crate::wait;
use crate::worker::Seat;

/// How many parts of a map are made before they are handed over together.
const BATCH: usize = 256;

/// The engine of a pool.
#[pyclass(frozen, weakref, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Engine {
    shared: Arc<Shared>,
    streams: Mutex<Vec<Weak<Stream>>>,
}

fn limit(name: &str, seconds: Option<f64>) -> PyResult<Option<Duration>> {
    wait::refuse_nan(name, seconds)?;
    Ok(seconds.filter(|s| *s > 0.0).and_then(|s| Duration::try_from_secs_f64(s).ok()))
}

fn given(object: Bound<'_, PyAny>) -> Option<Py<PyAny>> {
    (!object.is_none()).then(|| object.unbind())
}

impl Engine {
    fn packer(&self, tell: bool) -> Packer<'_> {
        Packer {
            engine: &self.shared.engine,
            encoder: &self.shared.encoder,
            functions: &self.shared.functions,
            tell,
        }
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn nudge_streams(&self) {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in streams.iter().filter_map(Weak::upgrade) {
            stream.nudge();
        }
    }

    fn cut_streams(&self) {
        let streams: Vec<_> = {
            let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            streams.iter().filter_map(Weak::upgrade).collect()
        };
        // Without the lock: the last holder of a stream may be dropped here.
        streams.iter().for_each(|stream| stream.cut());
    }

    /// Ends a part of a job with an error of ours.
    fn fail(&self, py: Python<'_>, job: &Arc<billiard::pool::Job>, part: u32, error: &PyErr) -> PyResult<()> {
        let bytes = encode_error(py, error, false)?;
        let verdict = Verdict::Error(Message::copy(&bytes));
        self.shared.engine.settle_part(job, part, verdict).map_err(IntoPyErr::into_py_err)
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (workers, *, tasks_per_worker, max_restarts, restart_window, terminate, soft, inspect, cpus, pickler, retries = None))]
    #[expect(clippy::too_many_arguments, reason = "each is an option of the pool")]
    fn new(
        workers: u32,
        tasks_per_worker: Option<u32>,
        max_restarts: Option<u32>,
        restart_window: f64,
        terminate: i32,
        soft: i32,
        inspect: i32,
        cpus: usize,
        pickler: Bound<'_, PyAny>,
        retries: Option<u32>,
    ) -> PyResult<Self> {
        let default = RestartPolicy::default();
        let window = Duration::try_from_secs_f64(restart_window).unwrap_or(default.window);
        let engine = engine::Engine::new(Options {
            workers,
            tasks_per_worker,
            restart: RestartPolicy { max_restarts, window, retries: retries.unwrap_or(default.retries) },
            signals: Signals { terminate, soft, inspect },
            spin: cpus > 1,
        })
        .map_err(IntoPyErr::into_py_err)?;
        let shared = Shared::new(engine, Encoder::new(pickler)?);
        Ok(Self { shared: Arc::new(shared), streams: Mutex::default() })
    }

    /// Start the background thread.
    fn run(&self) -> PyResult<()> {
        self.shared.engine.run().map_err(IntoPyErr::into_py_err)
    }

    /// Submit one call. `name` is what a report about its loss calls it; None: by the function's name.
    #[pyo3(signature = (
        pool, function, args, kwargs, callback, error_callback, accept_callback, timeout_callback, soft_timeout,
        timeout, lost_worker_timeout, propagate, correlation_id, slot, tell, name = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "each is an argument of `apply_async`")]
    fn submit(
        &self,
        pool: Py<PyAny>,
        function: Bound<'_, PyAny>,
        args: Bound<'_, PyAny>,
        kwargs: Bound<'_, PyAny>,
        callback: Bound<'_, PyAny>,
        error_callback: Bound<'_, PyAny>,
        accept_callback: Bound<'_, PyAny>,
        timeout_callback: Bound<'_, PyAny>,
        soft_timeout: Option<f64>,
        timeout: Option<f64>,
        lost_worker_timeout: Option<f64>,
        propagate: Bound<'_, PyAny>,
        correlation_id: Bound<'_, PyAny>,
        slot: bool,
        tell: bool,
        name: Option<Py<PyAny>>,
    ) -> PyResult<Py<ApplyResult>> {
        let py = function.py();
        let shared = &self.shared;
        let limits = Limits { soft: limit("soft_timeout", soft_timeout)?, hard: limit("timeout", timeout)? };
        let extras = Extras {
            callback: given(callback),
            error_callback: given(error_callback),
            accept_callback: given(accept_callback),
            timeout_callback: given(timeout_callback),
            soft_timeout,
            timeout,
            lost_worker_timeout,
            propagate: (propagate.is_truthy()?).then(|| propagate.unbind()),
            correlation_id: given(correlation_id),
            slot,
            map: None,
            name,
        };
        let accepted = tell || extras.accept_callback.is_some();
        let notify = Notify {
            // Whoever hears of the beginning is kept until the end, or it might be gone before it is told.
            done: accepted
                || slot
                || extras.callback.is_some()
                || extras.error_callback.is_some()
                || extras.timeout_callback.is_some(),
            accepted,
            soft_limit: tell || extras.timeout_callback.is_some(),
        };
        let plain = !notify.done
            && !accepted
            && limits == Limits::NONE
            && lost_worker_timeout.is_none()
            && extras.correlation_id.is_none();
        shared.engine.is_mine().map_err(IntoPyErr::into_py_err)?;
        let mut scratch = Vec::with_capacity(64);
        let body = self.packer(accepted).call(&function, &args, &kwargs, &mut scratch);
        let token = shared.reserve();
        if token & 63 == 0 {
            shared.sweep();
        }
        let job = shared.engine.job(next_job(), token, Shape::Single, notify);
        let handle = ApplyResult::new(
            Arc::clone(shared),
            Arc::clone(&job),
            pool,
            function.unbind(),
            (!plain).then(|| Box::new(extras)),
        );
        let handle = Py::new(py, handle)?;
        shared.keep(token, handle.clone_ref(py).into_any());
        let submitted = match body {
            Ok(body) => shared.engine.submit(&job, 0, body, limits).map_err(IntoPyErr::into_py_err),
            Err(error) => shared.engine.is_open().map_err(IntoPyErr::into_py_err).and_then(|()| {
                let told = crate::python::tasks(py, "unsendable")?;
                let told = told.call1((error.value(py), handle.getattr(py, "_function")?, args, kwargs))?;
                self.fail(py, &job, 0, &PyErr::from_value(told))
            }),
        };
        if let Err(error) = submitted {
            drop(shared.release(token));
            return Err(error);
        }
        Ok(handle)
    }

    /// Submit one call for each item of a sequence, in chunks.
    #[expect(clippy::too_many_arguments, reason = "each is an argument of `map_async`")]
    fn submit_map(
        &self,
        pool: Py<PyAny>,
        function: Bound<'_, PyAny>,
        items: Bound<'_, PyAny>,
        chunk: usize,
        star: bool,
        callback: Bound<'_, PyAny>,
        error_callback: Bound<'_, PyAny>,
        soft_timeout: Option<f64>,
        timeout: Option<f64>,
        lost_worker_timeout: Option<f64>,
        tell: bool,
    ) -> PyResult<Py<MapResult>> {
        let py = function.py();
        let shared = &self.shared;
        shared.engine.is_open().map_err(IntoPyErr::into_py_err)?;
        let items = match items.cast_into::<PyList>() {
            Ok(list) => list,
            Err(other) => py.get_type::<PyList>().call1((other.into_inner(),))?.cast_into()?,
        };
        let length = items.len();
        let parts = u32::try_from(length.div_ceil(chunk.max(1)))
            .map_err(|_| PyTypeError::new_err("a map has at most 2**32 chunks; use a larger chunksize"))?;
        let extras = Extras {
            callback: given(callback),
            error_callback: given(error_callback),
            soft_timeout,
            timeout,
            lost_worker_timeout,
            map: Some((chunk, length)),
            ..Extras::default()
        };
        let notify = Notify {
            done: parts > 0 && (tell || extras.callback.is_some() || extras.error_callback.is_some()),
            accepted: tell,
            soft_limit: tell,
        };
        let token = shared.reserve();
        shared.sweep();
        let job = shared.engine.job(next_job(), token, Shape::Batch(parts), notify);
        let limits = Limits { soft: limit("soft_timeout", soft_timeout)?, hard: limit("timeout", timeout)? };
        let base = ApplyResult::new(
            Arc::clone(shared),
            Arc::clone(&job),
            pool,
            function.clone().unbind(),
            Some(Box::new(extras)),
        );
        let handle = Py::new(py, PyClassInitializer::from(base).add_subclass(MapResult))?;
        if parts == 0 {
            drop(shared.release(token));
            return Ok(handle);
        }
        shared.keep(token, handle.clone_ref(py).into_any());
        let packer = self.packer(tell);
        let mut scratch = Vec::new();
        let mut batch = Vec::with_capacity(BATCH);
        for part in 0..parts {
            let start = part as usize * chunk;
            // The list is ours, or the caller's who may change it while we run reducers: then the end moves.
            let slice = items.get_slice(start, start + chunk).to_tuple();
            match packer.each(&function, &slice, star, &mut scratch) {
                Ok(body) => batch.push((part, body)),
                Err(error) => {
                    let told = crate::python::tasks(py, "unsendable_item")?;
                    let told = told.call1((error.value(py), &function, slice, start))?;
                    self.fail(py, &job, part, &PyErr::from_value(told))?;
                    // The first failure decides; what comes behind it need not run.
                    break;
                }
            }
            if batch.len() == BATCH || part + 1 == parts {
                let submitted = shared.engine.submit_all(&job, batch.drain(..), limits);
                if let Err(error) = submitted {
                    drop(shared.release(token));
                    return Err(error.into_py_err());
                }
            }
        }
        Ok(handle)
    }

    /// Open a stream: an iterator over results, and the feeder that takes the inputs.
    #[expect(clippy::too_many_arguments, reason = "each is an argument of `imap`")]
    fn submit_stream(
        &self,
        py: Python<'_>,
        pool: Py<PyAny>,
        function: Py<PyAny>,
        inputs: Py<PyAny>,
        chunk: usize,
        window: u64,
        ordered: bool,
        soft_timeout: Option<f64>,
        timeout: Option<f64>,
        lost_worker_timeout: Option<f64>,
    ) -> PyResult<(Py<IMapIterator>, Py<Feeder>)> {
        let shared = &self.shared;
        shared.engine.open_stream().map_err(IntoPyErr::into_py_err)?;
        let token = shared.reserve();
        shared.sweep();
        let shape = if ordered { Shape::Ordered } else { Shape::Arrival };
        let job = shared.engine.job(next_job(), token, shape, Notify::default());
        let (iterator, feeder) = stream::open(
            py,
            Arc::clone(shared),
            job,
            pool,
            function,
            inputs,
            chunk,
            Limits { soft: limit("soft_timeout", soft_timeout)?, hard: limit("timeout", timeout)? },
            window,
            lost_worker_timeout,
        )?;
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|stream| stream.strong_count() > 0);
        streams.push(Arc::downgrade(iterator.stream()));
        drop(streams);
        let iterator = if ordered {
            Py::new(py, iterator)?
        } else {
            let unordered = PyClassInitializer::from(iterator).add_subclass(IMapUnorderedIterator);
            Py::new(py, unordered)?.into_bound(py).into_super().unbind()
        };
        Ok((iterator, feeder))
    }

    /// Wait for the next thing that needs Python. None after `timeout` seconds.
    ///
    /// Returns:
    ///     A tuple whose first item names the event.
    #[pyo3(signature = (timeout = None) -> "tuple[Any, ...] | None")]
    fn next_event<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let deadline = wait::deadline(timeout)?;
        loop {
            let Some(event) = py.detach(|| self.shared.engine.next_event(deadline)) else { return Ok(None) };
            if let Some(told) = self.tell(py, event)? {
                return Ok(Some(told));
            }
        }
    }

    /// The shared memory for the worker of a seat.
    fn seat(&self, seat: u32, generation: u32) -> PyResult<Seat> {
        let id = WorkerId { seat, generation };
        let (seat, hub) = self.shared.engine.seat(id).map_err(IntoPyErr::into_py_err)?;
        Ok(Seat::new(seat, hub, self.shared.engine.may_spin()))
    }

    /// The worker's process runs.
    fn started(&self, seat: &Bound<'_, Seat>, child: &Bound<'_, Child>, name: &str) -> PyResult<()> {
        let (seat, child) = (Arc::clone(seat.get().inner()), Arc::clone(child.get().inner()));
        self.shared.engine.started(seat, child, name).map_err(IntoPyErr::into_py_err)
    }

    /// The worker's process could not be started.
    fn not_started(&self, seat: u32, generation: u32) -> PyResult<()> {
        self.shared.engine.not_started(WorkerId { seat, generation }).map_err(IntoPyErr::into_py_err)
    }

    /// `"running"`, `"draining"`, `"terminating"` or `"broken"`.
    fn phase(&self) -> &'static str {
        match self.shared.engine.phase() {
            Phase::Running => "running",
            Phase::Draining => "draining",
            Phase::Terminating => "terminating",
            Phase::Broken => "broken",
        }
    }

    /// Accept nothing more; finish what was accepted.
    fn close(&self) -> PyResult<()> {
        let closed = self.shared.engine.close();
        self.nudge_streams();
        closed.map_err(IntoPyErr::into_py_err)
    }

    /// End everything now.
    fn terminate(&self) -> PyResult<()> {
        let terminated = self.shared.engine.terminate();
        self.cut_streams();
        terminated.map_err(IntoPyErr::into_py_err)
    }

    /// Wait until the last worker is gone. False: it took longer than `timeout` seconds.
    #[pyo3(signature = (timeout = None))]
    fn join(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let over = self.shared.engine.over().map_err(IntoPyErr::into_py_err)?;
        self.shared.wait(py, &over, wait::deadline(timeout)?)
    }

    /// Add `n` workers.
    fn grow(&self, n: u32) -> PyResult<()> {
        self.shared.engine.grow(n).map_err(IntoPyErr::into_py_err)
    }

    /// Send `n` idle workers home, all or none; answers their process ids.
    fn shrink(&self, n: u32) -> PyResult<Vec<i32>> {
        self.shared.engine.shrink(n).map_err(IntoPyErr::into_py_err)
    }

    /// Replace every worker once it has finished what it runs.
    fn renew(&self) -> PyResult<()> {
        self.shared.engine.renew().map_err(IntoPyErr::into_py_err)
    }

    /// Signal the worker `pid`; what it runs ends as terminated if it dies of it. False: no such worker.
    fn end_job(&self, pid: i32, signal: i32) -> PyResult<bool> {
        self.shared.engine.end_job(pid, signal).map_err(IntoPyErr::into_py_err)
    }

    /// Handles of all jobs that have not ended.
    fn handles(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.shared.all(py)
    }

    /// Let go of the handles of jobs that have ended.
    fn sweep(&self) {
        self.shared.sweep();
    }

    /// Tasks that have not ended, and how many of them no worker has been given.
    fn load(&self) -> (usize, usize) {
        self.shared.engine.load()
    }

    /// What the last worker has said that could not start, or did not end as it should.
    fn start_error(&self) -> Option<String> {
        self.shared.engine.start_error()
    }

    /// How many workers are wanted.
    fn target(&self) -> u32 {
        self.shared.engine.target()
    }
}

impl Engine {
    /// An event as Python sees it. None: it was for us.
    pub(crate) fn tell<'py>(&self, py: Python<'py>, event: Event) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let shared = &self.shared;
        let told = match event {
            Event::Start(id) => ("start", id.seat, id.generation).into_pyobject(py)?,
            Event::Up(id) => ("up", id.seat, id.generation).into_pyobject(py)?,
            Event::Exited { worker, pid, status, last_words } => {
                let code = ExitStatus::exitcode(status);
                ("exited", worker.seat, worker.generation, pid, code, last_words).into_pyobject(py)?
            }
            Event::Done(job) => match shared.release(job.token()) {
                Some(handle) => ("done", handle).into_pyobject(py)?,
                None => return Ok(None),
            },
            Event::Accepted { job, pid, at, .. } => match shared.handle(py, job.token()) {
                Some(handle) => ("accepted", handle, pid, Moment::as_secs_f64(at)).into_pyobject(py)?,
                None => return Ok(None),
            },
            Event::SoftLimit { job, limit, .. } => match shared.handle(py, job.token()) {
                Some(handle) => ("soft", handle, limit.as_secs_f64()).into_pyobject(py)?,
                None => return Ok(None),
            },
            Event::Ended => {
                shared.sweep();
                return Ok(None);
            }
            Event::Broke => {
                self.cut_streams();
                ("broke",).into_pyobject(py)?
            }
            Event::Over => {
                // Nobody asks any more: what is still kept here would keep us, for ever.
                shared.sweep();
                ("over",).into_pyobject(py)?
            }
        };
        Ok(Some(told))
    }
}

impl IntoPyErr for EngineError {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::Os { source, .. } => source.into_py_err(),
            Self::NotRunning(_) => pyo3::exceptions::PyValueError::new_err(self.to_string()),
            Self::AllBusy(_) => {
                pyo3::exceptions::PyValueError::new_err("Can't shrink pool. All processes busy!")
            }
            other => PyRuntimeError::new_err(other.to_string()),
        }
    }
}
