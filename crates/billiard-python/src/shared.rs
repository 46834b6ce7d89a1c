//! What the engine's Python objects share: the engine, the encoders, and the handles of jobs that have not ended.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use billiard::pool::engine::{Engine, Outcome};
use billiard::pool::{Job, Message, Verdict};
use billiard::sys::Deadline;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::codec::{self, Encoder, Reader};
use crate::errors::IntoPyErr;
use crate::functions::Functions;
use crate::handles::ApplyResult;
use crate::python;
use crate::wait::{Blocking, Wait};

/// Numbers of jobs, in order of submission, for all pools of this process.
static NEXT_JOB: AtomicU64 = AtomicU64::new(0);

pub(crate) fn next_job() -> u64 {
    // Relaxed: only uniqueness matters.
    NEXT_JOB.fetch_add(1, Ordering::Relaxed)
}

#[derive(Debug, Default)]
struct Handles {
    rows: Vec<Option<Py<PyAny>>>,
    free: Vec<u32>,
}

/// One pool, as its Python objects see it.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) encoder: Encoder,
    pub(crate) functions: Functions,
    handles: Mutex<Handles>,
}

impl Shared {
    pub(crate) fn new(engine: Engine, encoder: Encoder) -> Self {
        Self { engine, encoder, functions: Functions::default(), handles: Mutex::default() }
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A row for a job's handle.
    pub(crate) fn reserve(&self) -> u32 {
        let mut handles = self.handles();
        handles.free.pop().unwrap_or_else(|| {
            handles.rows.push(None);
            u32::try_from(handles.rows.len() - 1).expect("fewer than 2^32 jobs fit into memory")
        })
    }

    /// Keeps a handle alive until its job has ended.
    pub(crate) fn keep(&self, token: u32, handle: Py<PyAny>) {
        if let Some(row) = self.handles().rows.get_mut(token as usize) {
            *row = Some(handle);
        }
    }

    /// The handle of a job.
    pub(crate) fn handle(&self, py: Python<'_>, token: u32) -> Option<Py<PyAny>> {
        self.handles().rows.get(token as usize)?.as_ref().map(|handle| handle.clone_ref(py))
    }

    /// The result of a single job.
    pub(crate) fn result<'py>(&self, py: Python<'py>, job: &Job) -> Option<Bound<'py, ApplyResult>> {
        self.handle(py, job.token())?.into_bound(py).cast_into().ok()
    }

    /// The handle of a job that has ended; it is not kept any longer.
    pub(crate) fn release(&self, token: u32) -> Option<Py<PyAny>> {
        let mut handles = self.handles();
        let handle = handles.rows.get_mut(token as usize)?.take();
        handles.free.push(token);
        if handles.free.len() == handles.rows.len() && handles.rows.len() > 65_536 {
            // The flood is over.
            *handles = Handles::default();
        }
        handle
    }

    /// Lets go of handles whose jobs have ended.
    pub(crate) fn sweep(&self) {
        let mut ended = Vec::new();
        self.engine.take_ended(&mut ended);
        // Handles are dropped one by one, without the lock: what hangs on them is the program's.
        for token in ended {
            drop(self.release(token));
        }
    }

    /// The handles of all jobs that have not ended.
    pub(crate) fn all(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.sweep();
        self.handles().rows.iter().flatten().map(|handle| handle.clone_ref(py)).collect()
    }

    /// Waits until there are news of a job. False: the time was up first.
    pub(crate) fn wait(&self, py: Python<'_>, job: &Arc<Job>, deadline: Deadline) -> PyResult<bool> {
        if job.has_news() {
            return Ok(true);
        }
        let (mut waiting, news) = py
            .detach(|| {
                let mut waiting = self.engine.wait(job)?;
                let news = waiting.spin();
                Ok((waiting, news))
            })
            .map_err(billiard::pool::engine::EngineError::into_py_err)?;
        if news {
            return Ok(true);
        }
        let news = py.wait_for(|interrupts| {
            waiting.sleep(deadline, interrupts).map(|outcome| match outcome {
                Outcome::News => Wait::Ready(()),
                Outcome::TimedOut => Wait::TimedOut,
                Outcome::Interrupted => Wait::Interrupted,
            })
        })?;
        Ok(news.is_some())
    }

    /// Turns how a part of a job ended into Python: whether it succeeded, and its value or an `ExceptionInfo`.
    pub(crate) fn decode<'py>(
        &self,
        py: Python<'py>,
        job: &Job,
        verdict: &Verdict,
        what: &Bound<'py, PyAny>,
    ) -> PyResult<(bool, Bound<'py, PyAny>)> {
        match verdict {
            Verdict::Value(message) => match codec::read(py, message, 0) {
                Ok(value) => Ok((true, value)),
                Err(error) => Ok((false, python::tasks(py, "unreadable_result")?.call1((error,))?)),
            },
            Verdict::Error(message) => Ok((false, decode_error(py, message)?)),
            Verdict::Failed(report) => Ok((false, crate::reports::explain(py, job.id(), report, what)?)),
        }
    }
}

/// The values of one chunk of a map, appended to `into`.
pub(crate) fn decode_chunk<'py>(
    py: Python<'py>,
    message: &Message,
    into: &Bound<'py, PyList>,
) -> PyResult<()> {
    if let Some(bytes) = message.private()
        && bytes.first() == Some(&crate::worker::SHORT_LIST)
    {
        let mut reader = Reader::new(&bytes[1..]);
        for _ in 0..reader.u32()? {
            into.append(reader.value(py)?)?;
        }
        return Ok(());
    }
    if message.private().is_none() {
        // A large chunk of short values is in shared memory as a whole.
        let bytes = message.to_vec();
        if bytes.first() == Some(&crate::worker::SHORT_LIST) {
            return decode_chunk(py, &Message::Heap(bytes.into()), into);
        }
    }
    for value in codec::read(py, message, 0)?.try_iter()? {
        into.append(value?)?;
    }
    Ok(())
}

/// The `ExceptionInfo` that a worker sent, or one that says that it cannot be read.
fn decode_error<'py>(py: Python<'py>, message: &Message) -> PyResult<Bound<'py, PyAny>> {
    let bytes = message.to_vec();
    let mut reader = Reader::new(&bytes);
    let (name, text, trace) = (reader.text()?, reader.text()?, reader.text()?);
    let pickle = PyBytes::new(py, reader.rest());
    python::tasks(py, "read_error")?.call1((name, text, trace, pickle))
}

/// The bytes of an error, made of what Python has told about it.
pub(crate) fn encode_error(py: Python<'_>, error: &PyErr, in_worker: bool) -> PyResult<Vec<u8>> {
    let value = error.value(py);
    if let Some(trace) = error.traceback(py) {
        // Until an exception is raised again, its traceback is kept beside it.
        value.setattr(pyo3::intern!(py, "__traceback__"), trace)?;
    }
    let told = python::tasks(py, "tell_error")?.call1((value, in_worker))?;
    let (name, text, trace, pickle): (String, String, String, Vec<u8>) = told.extract()?;
    let mut bytes = Vec::new();
    for part in [name, text, trace] {
        bytes.extend((part.len() as u32).to_le_bytes());
        bytes.extend(part.as_bytes());
    }
    bytes.extend(pickle);
    Ok(bytes)
}

impl Shared {
    /// Forgets the handle of a job that nobody will ask about.
    pub(crate) fn release_handle(&self, job: &Job) -> Option<Py<PyAny>> {
        self.handles().rows.get_mut(job.token() as usize)?.take()
    }
}
