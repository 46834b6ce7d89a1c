//! Messages on their way through a descriptor: what can be moved at once is, and for the rest the interpreter is let go.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use billiard::conn::frame::HeadReader;
use billiard::conn::transport::{Heard, Line, Moved, drain, fill, read_head};
use billiard::conn::{ConnError, Pause};
use billiard::sys::Interrupts;
use billiard::sys::descriptor::lend;
use billiard::sys::spin::Spin;
use billiard::sys::stream::{Kind, Piece, Room};
use billiard::sys::{Deadline, now};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::buffers::Blank;
use crate::errors::IntoPyErr;
use crate::wait::{Blocking, Wait};

/// What is moved without letting other threads run, if it can be moved at once: letting go of the interpreter, and getting it
/// back, may take longer.
const SHORT: usize = 64 * 1024;
/// A message that has arrived in part. Whoever was interrupted left it here, and the next who receives goes on with it.
#[derive(Debug, Default)]
pub(crate) struct Partial {
    pub(crate) head: HeadReader,
    pub(crate) body: Option<Blank>,
    pub(crate) arrived: usize,
    /// What came beside the head.
    pub(crate) carried: Option<OwnedFd>,
}

/// Where messages go through.
#[derive(Clone, Copy)]
pub(crate) struct Track<'a> {
    pub(crate) fd: BorrowedFd<'a>,
    pub(crate) kind: Kind,
}

impl Track<'_> {
    fn line<'a>(&'a self, deadline: Deadline, interrupts: Option<Interrupts<'a>>) -> Line<'a> {
        Line { fd: self.fd, kind: self.kind, deadline, interrupts }
    }
}

/// A descriptor of our own for what somebody else's refers to, and what kind of stream that is.
pub(crate) fn copied(number: RawFd) -> PyResult<(OwnedFd, Kind)> {
    let fd = lend(number).and_then(|fd| fd.try_clone_to_owned()).map_err(IntoPyErr::into_py_err)?;
    let kind = Kind::of(fd.as_fd()).map_err(IntoPyErr::into_py_err)?;
    Ok((fd, kind))
}

/// Why there is no length.
pub(crate) enum Failure {
    Stream(ConnError),
    Python(PyErr),
}

/// An error that already is Python's, or one that becomes so.
impl IntoPyErr for Failure {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::Stream(error) => error.into_py_err(),
            Self::Python(error) => error,
        }
    }
}

pub(crate) fn receive_length(
    py: Python<'_>,
    track: Track<'_>,
    head: &mut HeadReader,
    spin: &Spin,
) -> Result<u64, Failure> {
    match read_head(track.line(Deadline::AT_ONCE, None), head).map_err(Failure::Stream)? {
        Heard::Length(length) => return Ok(length),
        Heard::Paused(Pause::NotNow) => return Err(Failure::Stream(ConnError::WouldBlock)),
        Heard::Paused(_) => {}
    }
    if spin.is_worth_it() {
        let found = py.detach(|| {
            spin.find(|| match read_head(track.line(Deadline::AT_ONCE, None), head) {
                Ok(Heard::Paused(_)) => None,
                found => Some(found),
            })
        });
        if let Some(Heard::Length(length)) = found.transpose().map_err(Failure::Stream)? {
            return Ok(length);
        }
    }
    let mut failure = None;
    let start = now();
    let waited = py.wait_for(|interrupts| {
        Ok::<_, std::io::Error>(match read_head(track.line(Deadline::Never, interrupts), head) {
            Ok(Heard::Length(length)) => Wait::Ready(Some(length)),
            Ok(Heard::Paused(Pause::Interrupted)) => Wait::Interrupted,
            Ok(Heard::Paused(_)) => {
                failure = Some(ConnError::WouldBlock);
                Wait::Ready(None)
            }
            Err(error) => {
                failure = Some(error);
                Wait::Ready(None)
            }
        })
    });
    let waited = waited.map_err(Failure::Python)?.flatten();
    spin.slept(now().since(start));
    waited.ok_or_else(|| Failure::Stream(failure.unwrap_or(ConnError::WouldBlock)))
}

pub(crate) fn receive_body(
    py: Python<'_>,
    track: Track<'_>,
    partial: &mut Partial,
    len: usize,
) -> PyResult<()> {
    let body = match &mut partial.body {
        Some(body) => body,
        none => none.insert(Blank::new(py, len)?),
    };
    let mut room = body.room(py, partial.arrived);
    let pulled = pull(py, track, &mut room);
    partial.arrived = len - room.left();
    settle(pulled, partial, len)
}

/// What has become of a message's body.
pub(crate) fn settle(pulled: PyResult<Moved>, partial: &mut Partial, len: usize) -> PyResult<()> {
    match pulled? {
        Moved::All => Ok(()),
        Moved::Ended => {
            let got = std::mem::take(partial).arrived as u64;
            Err(ConnError::Torn { got, want: len as u64 }.into_py_err())
        }
        Moved::Paused(_) => Err(ConnError::WouldBlock.into_py_err()),
    }
}

/// The message, all of which is there.
pub(crate) fn finished<'py>(py: Python<'py>, partial: &mut Partial) -> PyResult<Bound<'py, PyBytes>> {
    let body = std::mem::take(partial).body.map_or_else(|| Blank::new(py, 0), Ok)?;
    Ok(body.finish(py))
}

/// Reads until there is no room left, the stream has ended, or a descriptor in non-blocking mode has nothing more.
pub(crate) fn pull(py: Python<'_>, track: Track<'_>, room: &mut Room<'_>) -> PyResult<Moved> {
    if room.left() <= SHORT {
        match fill(track.line(Deadline::AT_ONCE, None), room).map_err(IntoPyErr::into_py_err)? {
            Moved::Paused(Pause::TimedOut | Pause::Interrupted) => {}
            done => return Ok(done),
        }
    }
    move_all(py, |interrupts| fill(track.line(Deadline::Never, interrupts), room))
}

/// Writes until nothing is left. False: a descriptor in non-blocking mode does not take it all.
pub(crate) fn push(py: Python<'_>, track: Track<'_>, pieces: &mut [Piece<'_>]) -> PyResult<bool> {
    if pieces.iter().map(Piece::len).sum::<usize>() <= SHORT {
        match drain(track.line(Deadline::AT_ONCE, None), pieces).map_err(IntoPyErr::into_py_err)? {
            Moved::Paused(Pause::TimedOut | Pause::Interrupted) => {}
            done => return Ok(done == Moved::All),
        }
    }
    move_all(py, |interrupts| drain(track.line(Deadline::Never, interrupts), pieces))
        .map(|moved| moved == Moved::All)
}

fn move_all(
    py: Python<'_>,
    mut step: impl FnMut(Option<Interrupts<'_>>) -> std::io::Result<Moved> + Send,
) -> PyResult<Moved> {
    let moved = py.wait_for(|interrupts| {
        Ok::<_, std::io::Error>(match step(interrupts)? {
            Moved::Paused(Pause::Interrupted) => Wait::Interrupted,
            done => Wait::Ready(done),
        })
    })?;
    Ok(moved.unwrap_or(Moved::Paused(Pause::TimedOut)))
}
