//! `imap`: results one by one, inputs as they are needed.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use billiard::pool::scheduler::{Limits, Phase};
use billiard::pool::{Job, Message, Verdict};
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::calls::Packer;
use crate::errors::IntoPyErr;
use crate::python;
use crate::shared::{Shared, decode_chunk, encode_error};
use crate::wait;

/// How far the inputs may run ahead of the consumer.
#[derive(Debug, Default)]
struct Lead {
    /// Parts that were submitted and whose results were not taken.
    ahead: u64,
    /// Nobody wants further results.
    abandoned: bool,
}

/// A flow of inputs and results, shared by the iterator and its feeder.
#[derive(Debug)]
pub(crate) struct Stream {
    shared: Arc<Shared>,
    job: Arc<Job>,
    function: Py<PyAny>,
    chunk: usize,
    limits: Limits,
    window: u64,
    lead: Mutex<Lead>,
    moved: Condvar,
    fed: AtomicBool,
    /// The pool ended before the inputs did: the results stop short, and whoever reads them must hear of it.
    cut: AtomicBool,
    parts: AtomicU32,
}

impl Stream {
    fn change(&self, change: impl FnOnce(&mut Lead)) {
        change(&mut self.lead.lock().unwrap_or_else(PoisonError::into_inner));
        self.moved.notify_all();
    }

    /// Lets the feeder run: it looks again whether the pool still runs.
    pub(crate) fn nudge(&self) {
        self.change(|_| {});
    }

    /// The pool has ended. The inputs may never come back to us, so the results end here and now.
    pub(crate) fn cut(&self) {
        self.end_inputs(|| self.cut.store(true, Ordering::Release));
        self.nudge();
    }

    fn why_cut(&self, py: Python<'_>) -> PyResult<PyErr> {
        let (kind, known) = (self.shared.engine.phase(), PyDict::new(py));
        known.set_item("job", self.job.id())?;
        for name in ["pid", "worker_name", "last_stack", "what"] {
            known.set_item(name, py.None())?;
        }
        let kind = if kind == Phase::Broken {
            "broken"
        } else {
            known.set_item("exitcode", py.None())?;
            "terminated"
        };
        let info = python::tasks(py, kind)?.call((), Some(&known))?;
        Ok(PyErr::from_value(python::tasks(py, "raisable")?.call1((info,))?))
    }

    /// No more inputs will be submitted.
    fn finish(&self) {
        self.end_inputs(|| {});
    }

    fn end_inputs(&self, before: impl FnOnce()) {
        if !self.fed.swap(true, Ordering::AcqRel) {
            // Whoever sees the end sees this.
            before();
            // Refused only in a forked copy, where nobody waits for it.
            let _ = self.shared.engine.fed(&self.job);
        }
    }

    /// Waits until another input may be taken. False: none is wanted any more.
    fn wait_for_room(&self) -> bool {
        let mut lead = self.lead.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if lead.abandoned {
                return false;
            }
            match self.shared.engine.phase() {
                Phase::Running if lead.ahead >= self.window => {}
                // A closed pool finishes what was accepted, whether somebody takes results meanwhile or not.
                Phase::Running | Phase::Draining => return true,
                Phase::Terminating | Phase::Broken => {
                    drop(lead);
                    self.cut();
                    return false;
                }
            }
            lead = self.moved.wait(lead).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Takes inputs and submits them, as the consumer makes room. Runs in a thread of its own, since inputs may take their time.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Feeder {
    stream: Arc<Stream>,
    inputs: Py<PyAny>,
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.stream.finish();
    }
}

impl Feeder {
    /// Up to one chunk of inputs; an exception of the inputs comes after those before it.
    fn chunk<'py>(&self, py: Python<'py>) -> (Vec<Bound<'py, PyAny>>, Option<PyErr>, bool) {
        let mut items = Vec::new();
        while items.len() < self.stream.chunk {
            match self.inputs.bind(py).call_method0(pyo3::intern!(py, "__next__")) {
                Ok(item) => items.push(item),
                Err(error) if error.is_instance_of::<PyStopIteration>(py) => return (items, None, true),
                Err(error) => return (items, Some(error), true),
            }
        }
        (items, None, false)
    }

    fn submit(&self, py: Python<'_>, items: Vec<Bound<'_, PyAny>>, scratch: &mut Vec<u8>) -> PyResult<bool> {
        let stream = &self.stream;
        let part = stream.parts.fetch_add(1, Ordering::Relaxed);
        let shared = &stream.shared;
        let packer = Packer {
            engine: &shared.engine,
            encoder: &shared.encoder,
            functions: &shared.functions,
            tell: false,
        };
        stream.change(|lead| lead.ahead += 1);
        let (function, items) = (stream.function.bind(py), PyTuple::new(py, items)?);
        match packer.each(function, &items, false, scratch) {
            Ok(body) => {
                let accepted = shared.engine.feed(&stream.job, part, body, stream.limits).is_ok();
                if !accepted {
                    stream.cut();
                }
                Ok(accepted)
            }
            Err(error) => {
                let start = part as usize * stream.chunk;
                let told = python::tasks(py, "unsendable_item")?;
                let told = told.call1((error.value(py), function, items, start))?;
                self.fail(py, part, &PyErr::from_value(told)).map(|()| true)
            }
        }
    }

    fn fail(&self, py: Python<'_>, part: u32, error: &PyErr) -> PyResult<()> {
        let bytes = encode_error(py, error, false)?;
        let stream = &self.stream;
        stream.job.expect();
        let verdict = Verdict::Error(Message::copy(&bytes));
        stream.shared.engine.settle_part(&stream.job, part, verdict).map_err(IntoPyErr::into_py_err)
    }

    fn feed(&self, py: Python<'_>) -> PyResult<()> {
        let mut scratch = Vec::new();
        while py.detach(|| self.stream.wait_for_room()) {
            let (items, error, last) = self.chunk(py);
            if !items.is_empty() && !self.submit(py, items, &mut scratch)? {
                break;
            }
            if let Some(error) = error {
                let part = self.stream.parts.fetch_add(1, Ordering::Relaxed);
                self.fail(py, part, &error)?;
            }
            if last {
                break;
            }
        }
        Ok(())
    }
}

#[pymethods]
impl Feeder {
    /// Feed the stream until the inputs end, raise, or nobody wants them.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        let fed = self.feed(py);
        self.stream.finish();
        fed
    }
}

/// Results of `Pool.imap`, in the order of the inputs.
#[pyclass(frozen, subclass, dict, weakref, module = "billiard.pool")]
#[derive(Debug)]
pub(crate) struct IMapIterator {
    stream: Arc<Stream>,
    pool: Py<PyAny>,
    lost_worker_timeout: Option<f64>,
    /// Values of a chunk that were not handed out.
    left: Mutex<std::vec::IntoIter<Py<PyAny>>>,
}

impl Drop for IMapIterator {
    fn drop(&mut self) {
        self.stream.change(|lead| lead.abandoned = true);
    }
}

/// A new stream: its state, and the feeder for its inputs.
#[expect(clippy::too_many_arguments, reason = "each is a choice of the caller's")]
pub(crate) fn open(
    py: Python<'_>,
    shared: Arc<Shared>,
    job: Arc<Job>,
    pool: Py<PyAny>,
    function: Py<PyAny>,
    inputs: Py<PyAny>,
    chunk: usize,
    limits: Limits,
    window: u64,
    lost_worker_timeout: Option<f64>,
) -> PyResult<(IMapIterator, Py<Feeder>)> {
    let stream = Arc::new(Stream {
        shared,
        job,
        function,
        chunk,
        limits,
        window,
        lead: Mutex::default(),
        moved: Condvar::new(),
        fed: AtomicBool::new(false),
        cut: AtomicBool::new(false),
        parts: AtomicU32::new(0),
    });
    let feeder = Py::new(py, Feeder { stream: Arc::clone(&stream), inputs })?;
    let iterator = IMapIterator { stream, pool, lost_worker_timeout, left: Mutex::default() };
    Ok((iterator, feeder))
}

impl IMapIterator {
    pub(crate) const fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    fn leftover(&self) -> Option<Py<PyAny>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    fn step(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        let deadline = wait::deadline(timeout)?;
        let stream = &self.stream;
        loop {
            if let Some(value) = self.leftover() {
                return Ok(Some(value));
            }
            if let Some((_, verdict)) = stream.job.take() {
                stream.change(|lead| lead.ahead = lead.ahead.saturating_sub(1));
                let Verdict::Value(message) = verdict else {
                    let what = stream.function.bind(py);
                    let (_, info) = stream.shared.decode(py, &stream.job, &verdict, what)?;
                    return Err(raised(py, &info)?);
                };
                let values = PyList::empty(py);
                if let Err(error) = decode_chunk(py, &message, &values) {
                    let info = python::tasks(py, "unreadable_result")?.call1((error,))?;
                    return Err(raised(py, &info)?);
                }
                let values: Vec<_> = values.iter().map(Bound::unbind).collect();
                *self.left.lock().unwrap_or_else(PoisonError::into_inner) = values.into_iter();
                continue;
            }
            if stream.job.is_done() {
                // The end may have come between the two looks, together with the last result.
                if stream.job.has_waiting() {
                    continue;
                }
                if stream.cut.swap(false, Ordering::AcqRel) {
                    return Err(stream.why_cut(py)?);
                }
                return Ok(None);
            }
            if !stream.shared.wait(py, &stream.job, deadline)? {
                return Err(PyErr::from_value(python::timeout_error(py)?.call0()?));
            }
        }
    }
}

fn raised(py: Python<'_>, info: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    Ok(PyErr::from_value(python::tasks(py, "raisable_in_iteration")?.call1((info,))?))
}

#[pymethods]
impl IMapIterator {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.step(py, None)
    }

    /// Return the next result.
    ///
    /// Args:
    ///     timeout: Seconds to wait; None waits for ever.
    ///
    /// Raises:
    ///     StopIteration: There are no further results.
    ///     multiprocessing.TimeoutError: There is none after `timeout` seconds; it can be asked for again.
    ///     Exception: What the task, or the input, raised at this position. The iteration can go on after it.
    #[pyo3(signature = (timeout = None))]
    fn next(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        self.step(py, timeout)?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    /// Whether every result is there and was taken.
    fn ready(&self) -> bool {
        self.stream.job.is_done() && !self.stream.job.has_waiting()
    }

    /// Process ids of the workers that run parts of it now.
    fn worker_pids(&self) -> Vec<i32> {
        self.stream.shared.engine.whereabouts(&self.stream.job).into_iter().map(|(pid, _)| pid).collect()
    }

    #[getter(_job)]
    fn number(&self) -> u64 {
        self.stream.job.id()
    }

    #[getter(_cache)]
    fn cache(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.pool.getattr(py, "_cache")
    }

    #[getter(_ready)]
    fn is_ready(&self) -> bool {
        self.ready()
    }

    #[getter(_length)]
    fn length(&self) -> Option<u32> {
        let stream = &self.stream;
        stream.fed.load(Ordering::Acquire).then(|| stream.parts.load(Ordering::Relaxed))
    }

    #[getter(_lost_worker_timeout)]
    const fn lost_worker_timeout(&self) -> Option<f64> {
        self.lost_worker_timeout
    }

    #[classattr]
    #[pyo3(name = "_worker_lost")]
    const WORKER_LOST: Option<bool> = None;
}

/// Results of `Pool.imap_unordered`, as they arrive.
#[pyclass(frozen, subclass, extends = IMapIterator, module = "billiard.pool")]
#[derive(Debug)]
pub(crate) struct IMapUnorderedIterator;
