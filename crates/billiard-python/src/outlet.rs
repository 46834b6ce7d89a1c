//! How an owner gives a worker one task after the other, and hears it, through pipes. A task changes hands within one call, and
//! so do the bytes of a message; no Python runs in it: whatever a signal handler does on top of the owner finds each in exactly
//! one place.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use billiard::conn::ConnError;
use billiard::conn::transport::{Heard, Line, Moved, fill, read_head};
use billiard::sys::Deadline;
use billiard::sys::stream::{self, Kind, Piece};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::Blank;
use crate::errors::IntoPyErr;
use crate::traffic::{Partial, copied, finished};

/// As much is written in one go, even if somebody reads as fast: signal handlers have their turn in between.
const STRETCH: usize = 1 << 20;

/// The end of a pipe that tasks are written to, and the task that is on its way.
///
/// Args:
///     number: The descriptor. It stays the caller's.
///
/// Raises:
///     OSError: There is no such descriptor, or none is left.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Outlet {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// None once nothing can be written any more.
    pipe: Option<(OwnedFd, Kind)>,
    task: Option<Py<PyAny>>,
    /// What is left to write of it begins at this byte.
    message: Option<Py<PyBytes>>,
    sent: usize,
    /// Nothing follows.
    ended: bool,
}

impl Inner {
    fn carry(&mut self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let message = task.getattr(intern!(task.py(), "message"))?.cast_into::<PyBytes>()?;
        self.task = Some(task.clone().unbind());
        self.begin(&message);
        Ok(())
    }

    fn begin(&mut self, message: &Bound<'_, PyBytes>) {
        self.message = Some(message.clone().unbind());
        self.sent = 0;
        self.write(message.py());
    }

    /// Writes as much as there is room for. Nobody is told of a pipe that has ended: its worker has, too.
    fn write(&mut self, py: Python<'_>) {
        let (Some((fd, kind)), Some(message)) = (&self.pipe, &self.message) else { return };
        let whole = message.as_bytes(py);
        let until = whole.len().min(self.sent.saturating_add(STRETCH));
        while self.sent < until {
            match stream::write(fd.as_fd(), *kind, &[Piece::of(&whole[self.sent..until])]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.pipe = None;
                    return;
                }
            }
        }
        if self.sent == whole.len() {
            self.message = None;
        }
    }
}

impl Outlet {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Outlet {
    #[new]
    fn new(number: RawFd) -> PyResult<Self> {
        let pipe = Some(copied(number)?);
        Ok(Self { inner: Mutex::new(Inner { pipe, task: None, message: None, sent: 0, ended: false }) })
    }

    /// Take the first of the tasks that wait, and write what there is room for of its `message`. Never waits.
    ///
    /// Args:
    ///     waiting: A deque.
    ///
    /// Returns:
    ///     Whether it was taken; not if there is none, or one is here already.
    #[pyo3(signature = (waiting: "Any") -> "bool")]
    fn take(&self, waiting: &Bound<'_, PyAny>) -> PyResult<bool> {
        let mut inner = self.inner();
        if inner.ended || inner.task.is_some() || waiting.len()? == 0 {
            return Ok(false);
        }
        let task = waiting.call_method0(intern!(waiting.py(), "popleft"))?;
        inner.carry(&task)?;
        Ok(true)
    }

    /// Put the task back in front of those that wait, and take no other one.
    #[pyo3(signature = (waiting: "Any") -> "None")]
    fn give_back(&self, waiting: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut inner = self.inner();
        inner.ended = true;
        if let Some(task) = inner.task.take() {
            waiting.call_method1(intern!(waiting.py(), "appendleft"), (task,))?;
        }
        Ok(())
    }

    /// Write a last message, after the task that is here. No other is taken, and nothing is written a second time.
    fn end(&self, message: &Bound<'_, PyBytes>) {
        let mut inner = self.inner();
        if !inner.ended && inner.message.is_none() {
            inner.ended = true;
            inner.begin(message);
        }
    }

    /// Write more of the task, as much as there is room for.
    fn flush(&self, py: Python<'_>) {
        self.inner().write(py);
    }

    /// Forget the task: it is done.
    fn release(&self) {
        let mut inner = self.inner();
        let done = (inner.task.take(), inner.message.take());
        // What it is made of may run code of its own when it goes.
        drop(inner);
        drop(done);
    }

    /// The task that was taken and not released; None if there is none.
    #[getter]
    fn task(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.inner().task.as_ref().map(|task| task.clone_ref(py))
    }

    /// Whether a part of the task waits for room.
    #[getter]
    fn waits(&self) -> bool {
        let inner = self.inner();
        inner.pipe.is_some() && inner.message.is_some()
    }

    /// Close the pipe's end here; no task is taken any more. Doing so again does nothing.
    fn close(&self) {
        let mut inner = self.inner();
        inner.pipe = None;
        inner.ended = true;
    }
}

/// The end of a pipe that messages are read from, bit by bit as they come.
///
/// Args:
///     number: The descriptor. It stays the caller's.
///
/// Raises:
///     OSError: There is no such descriptor, or none is left.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Inlet {
    inner: Mutex<Arriving>,
}

#[derive(Debug)]
struct Arriving {
    /// None once nothing comes any more.
    pipe: Option<(OwnedFd, Kind)>,
    partial: Partial,
}

impl Arriving {
    fn take<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let Some((fd, kind)) = &self.pipe else { return Err(ConnError::Closed.into_py_err()) };
        let line = Line { fd: fd.as_fd(), kind: *kind, deadline: Deadline::AT_ONCE, interrupts: None };
        let length = match read_head(line, &mut self.partial.head).map_err(IntoPyErr::into_py_err)? {
            Heard::Length(length) => length,
            Heard::Paused(_) => return Ok(None),
        };
        let body = match &mut self.partial.body {
            Some(body) => body,
            none => {
                let limit = isize::MAX as u64;
                let too_long = || ConnError::TooLong { announced: length, limit }.into_py_err();
                let len = usize::try_from(length).ok().filter(|_| length <= limit).ok_or_else(too_long)?;
                none.insert(Blank::new(py, len)?)
            }
        };
        let mut room = body.room(py, self.partial.arrived);
        let wanted = room.left();
        let moved = fill(line, &mut room);
        self.partial.arrived += wanted - room.left();
        match moved.map_err(IntoPyErr::into_py_err)? {
            Moved::All => finished(py, &mut self.partial).map(Some),
            Moved::Paused(_) => Ok(None),
            Moved::Ended => Err(ConnError::Closed.into_py_err()),
        }
    }
}

impl Inlet {
    fn inner(&self) -> MutexGuard<'_, Arriving> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Inlet {
    #[new]
    fn new(number: RawFd) -> PyResult<Self> {
        let pipe = Some(copied(number)?);
        Ok(Self { inner: Mutex::new(Arriving { pipe, partial: Partial::default() }) })
    }

    /// Take the bytes of a message. None if not all of them are there yet. Never waits.
    ///
    /// Raises:
    ///     EOFError: Nobody has the other end any more.
    ///     OSError: What comes is no message.
    #[pyo3(signature = () -> "bytes | None")]
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let mut inner = self.inner();
        let taken = inner.take(py);
        if taken.is_err() {
            inner.pipe = None;
        }
        taken
    }

    /// Close the pipe's end here. Doing so again does nothing.
    fn close(&self) {
        self.inner().pipe = None;
    }
}
