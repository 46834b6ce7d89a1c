//! How a worker with pipes speaks: each message is written whole, whatever signals arrive in the middle of it. Its owner would
//! take the rest of a torn one for the next.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use billiard::conn::Pause;
use billiard::conn::frame::Head;
use billiard::conn::transport::{Line, Moved, drain};
use billiard::sys::poll::{Awaited, poll_one};
use billiard::sys::stream::{Kind, Piece};
use billiard::sys::{Deadline, Interrupts};
use pyo3::exceptions::{PyBrokenPipeError, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::errors::IntoPyErr;
use crate::pickling::Pickle;
use crate::plain;
use crate::traffic::copied;
use crate::wait::{Blocking, Wait};

// The same number on every Linux.
const EPIPE: i32 = 32;

/// Writes messages to a pipe.
///
/// Args:
///     number: The descriptor of the pipe's end. It stays the caller's.
///
/// Raises:
///     OSError: There is no such descriptor, or none is left.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Mouth {
    fd: OwnedFd,
    kind: Kind,
    /// A message was left unfinished: nothing can follow. Relaxed: whoever speaks holds the interpreter.
    torn: AtomicBool,
}

#[pymethods]
impl Mouth {
    #[new]
    fn new(number: RawFd) -> PyResult<Self> {
        let (fd, kind) = copied(number)?;
        Ok(Self { fd, kind, torn: AtomicBool::new(false) })
    }

    /// Write a message. Waits until the pipe has taken all of it.
    ///
    /// A signal handler that raises before the first byte is written keeps the message back. Later, the message is finished
    /// first; only an exit of the process does not wait for that.
    ///
    /// Args:
    ///     message: A tuple. If it cannot be pickled, nothing is written.
    ///     wait: False to write it only if the pipe has room for it now; for messages that are shorter than a page.
    ///
    /// Returns:
    ///     Whether it was written.
    ///
    /// Raises:
    ///     BrokenPipeError: Nobody has the other end any more; or an earlier message was left unfinished.
    #[pyo3(signature = (message: "tuple[Any, ...]", wait: "bool" = true) -> "bool")]
    fn say(&self, message: &Bound<'_, PyTuple>, wait: bool) -> PyResult<bool> {
        let py = message.py();
        if self.torn.load(Ordering::Relaxed) {
            return Err(PyBrokenPipeError::new_err((EPIPE, "an earlier message was cut off")));
        }
        let mut bytes = Vec::with_capacity(256);
        if plain::write(message, &mut bytes) {
            let head = Head::of(bytes.len());
            return self.write(py, &mut [Piece::of(head.as_bytes()), Piece::of(&bytes)], wait);
        }
        let pickle = Pickle::of(message)?;
        let body = pickle.pieces(py);
        let head = Head::of(body.iter().map(Piece::len).sum());
        let mut pieces = Vec::with_capacity(body.len() + 1);
        pieces.push(Piece::of(head.as_bytes()));
        pieces.extend(body);
        self.write(py, &mut pieces, wait)
    }
}

impl Mouth {
    fn line<'a>(&'a self, deadline: Deadline, interrupts: Option<Interrupts<'a>>) -> Line<'a> {
        Line { fd: self.fd.as_fd(), kind: self.kind, deadline, interrupts }
    }

    fn write(&self, py: Python<'_>, pieces: &mut [Piece<'_>], wait: bool) -> PyResult<bool> {
        let left = |pieces: &[Piece<'_>]| pieces.iter().map(Piece::len).sum::<usize>();
        let whole = left(pieces);
        // No look at signals: what fits is out before any of them is.
        let line = self.line(Deadline::AT_ONCE, None);
        if drain(line, pieces).map_err(IntoPyErr::into_py_err)? == Moved::All {
            return Ok(true);
        }
        if !wait && left(pieces) == whole {
            return Ok(false);
        }
        let mut raised = None;
        while left(pieces) > 0 {
            let waited = py.wait_for(|interrupts| self.go_on(interrupts, pieces));
            if let Err(error) = waited {
                let ends =
                    error.is_instance_of::<PySystemExit>(py) || error.is_instance_of::<PyBrokenPipeError>(py);
                if ends || left(pieces) == whole {
                    self.torn.store(left(pieces) != whole, Ordering::Relaxed);
                    return Err(error);
                }
                raised.get_or_insert(error);
            }
        }
        raised.map_or(Ok(true), Err)
    }

    /// Writes until nothing is left, or somebody wants to see the signals. The pipe's mode is its owner's affair.
    fn go_on(
        &self,
        interrupts: Option<Interrupts<'_>>,
        pieces: &mut [Piece<'_>],
    ) -> std::io::Result<Wait<()>> {
        Ok(match drain(self.line(Deadline::Never, interrupts), pieces)? {
            Moved::All | Moved::Ended => Wait::Ready(()),
            Moved::Paused(Pause::NotNow) => {
                poll_one(self.fd.as_fd(), Awaited::Room, Deadline::Never, interrupts)?;
                Wait::Interrupted
            }
            Moved::Paused(_) => Wait::Interrupted,
        })
    }
}
