//! Connections as Python sees them: whole messages, and the objects in them. What waits, waits outside of the interpreter.

use std::os::fd::{IntoRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use billiard::conn::ConnError;
use billiard::conn::cargo::Stock;
use billiard::conn::frame::Head;
use billiard::conn::transport::{Moved, prepare};
use billiard::sys::poll::{Awaited, Woken, poll_one};
use billiard::sys::spin::Spin;
use billiard::sys::stream::Piece;
use billiard::sys::{Deadline, carrying, listening};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::buffers::{Blank, Sink, Source};
use crate::cargo;
use crate::codec::Encoder;
use crate::errors::{BufferTooShort, IntoPyErr};
use crate::holding::{Direction, Holding, Use, closed};
use crate::pickling::Pickle;
use crate::python;
use crate::traffic::{Failure, Partial, finished, pull, push, receive_body, receive_length, settle};
use crate::wait::{Blocking, Wait, deadline};

/// No bytes object is longer, whatever memory there is: it has a head, too.
const LONGEST: usize = isize::MAX as usize - 4096;

/// What sends objects with their buffers beside them.
fn usual_encoder(py: Python<'_>) -> PyResult<&'static Encoder> {
    static ENCODER: PyOnceLock<Encoder> = PyOnceLock::new();
    ENCODER.get_or_try_init(py, || Encoder::new(python::forking_pickler(py)?.clone()))
}

/// One end of a stream of messages.
#[pyclass(frozen, subclass, dict, weakref, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Connection {
    holding: Holding,
    spin: Spin,
    /// Both ends send large buffers beside their messages.
    oob: AtomicBool,
    stock: Stock,
}

impl Connection {
    fn send_pieces(&self, py: Python<'_>, line: &Use<'_>, pieces: &mut [Piece<'_>]) -> PyResult<()> {
        let left = |pieces: &[Piece<'_>]| pieces.iter().map(Piece::len).sum::<usize>();
        let whole = left(pieces);
        prepare(line.track.fd, line.track.kind, whole);
        let sent = push(py, line.track, pieces);
        match sent {
            Ok(true) => Ok(()),
            failed => {
                if left(pieces) != whole {
                    self.holding.tear();
                }
                failed?;
                Err(ConnError::WouldBlock.into_py_err())
            }
        }
    }

    /// Sends an object whose buffers lie beside its message, if it has any that are large.
    fn send_beside(&self, py: Python<'_>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        let pickled = usual_encoder(py)?.pickle(obj, &[])?;
        if !pickled.has_buffers() {
            let head = Head::of(pickled.pickle().len());
            let line = self.holding.enter(Direction::Out)?;
            let mut pieces = [Piece::of(head.as_bytes()), Piece::of(pickled.pickle())];
            return self.send_pieces(py, &line, &mut pieces);
        }
        let mut loaded = cargo::load(py, &pickled, &self.stock)?;
        let head = Head::of(loaded.message.len());
        let line = self.holding.enter(Direction::Out)?;
        let sent = loaded.begin(py, line.track, &head)?;
        let mut pieces = [Piece::of(&head.as_bytes()[sent..]), Piece::of(&loaded.message)];
        // The peer is in the middle of it already: whatever happens now, nothing else can follow.
        self.send_pieces(py, &line, &mut pieces).inspect_err(|_| self.holding.tear())
    }

    fn receive_beside<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let line = self.holding.enter(Direction::In)?;
        let (message, carried) = self.holding.receiving(|partial| {
            if partial.head.is_untouched() {
                cargo::first(py, line.track, partial, || self.holding.give_up_reading())?;
            }
            let len = self.receive_head(py, &line, partial, None)?;
            receive_body(py, line.track, partial, len)?;
            let carried = partial.carried.take();
            finished(py, partial).map(|message| (message, carried))
        })?;
        cargo::read(py, &message, carried)
    }

    /// Reads a message into an object of its own.
    fn receive_bytes<'py>(&self, py: Python<'py>, limit: Option<u64>) -> PyResult<Bound<'py, PyBytes>> {
        let line = self.holding.enter(Direction::In)?;
        self.holding.receiving(|partial| {
            let len = self.receive_head(py, &line, partial, limit)?;
            receive_body(py, line.track, partial, len)?;
            finished(py, partial)
        })
    }

    fn receive_head(
        &self,
        py: Python<'_>,
        line: &Use<'_>,
        partial: &mut Partial,
        limit: Option<u64>,
    ) -> PyResult<usize> {
        let length = match receive_length(py, line.track, &mut partial.head, &self.spin) {
            Ok(length) => length,
            Err(Failure::Stream(error)) => {
                *partial = Partial::default();
                if matches!(error, ConnError::Frame(_)) {
                    self.holding.give_up_reading();
                }
                return Err(error.into_py_err());
            }
            Err(Failure::Python(error)) => return Err(error),
        };
        let acceptable = limit.is_none_or(|limit| length <= limit);
        let len = usize::try_from(length).ok().filter(|len| acceptable && *len <= LONGEST);
        len.ok_or_else(|| {
            *partial = Partial::default();
            self.holding.give_up_reading();
            let limit = limit.unwrap_or(LONGEST as u64);
            ConnError::TooLong { announced: length, limit }.into_py_err()
        })
    }
}

#[pymethods]
impl Connection {
    #[new]
    #[pyo3(signature = (*_args: "Any", **_kwargs: "Any"))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            holding: Holding::none(),
            spin: Spin::over_kernel(),
            oob: AtomicBool::new(false),
            stock: Stock::default(),
        }
    }

    /// Begin to use a descriptor, which belongs to this object from now on.
    ///
    /// Args:
    ///     number: The descriptor.
    ///     readable: Whether messages can be received.
    ///     writable: Whether messages can be sent.
    fn _open(&self, number: RawFd, readable: bool, writable: bool) {
        self.holding.open(number, readable, writable);
    }

    /// The descriptor's number; None once it is closed.
    #[getter]
    fn _handle(&self) -> Option<RawFd> {
        self.holding.number()
    }

    #[getter]
    fn _readable(&self) -> bool {
        self.readable()
    }

    #[getter]
    fn _writable(&self) -> bool {
        self.writable()
    }

    /// Whether this end has been closed.
    #[getter]
    fn closed(&self) -> bool {
        self.holding.number().is_none()
    }

    /// Whether messages can be received.
    #[getter]
    fn readable(&self) -> bool {
        self.holding.is_readable()
    }

    /// Whether messages can be sent.
    #[getter]
    fn writable(&self) -> bool {
        self.holding.is_writable()
    }

    /// Whether the large buffers of objects travel beside them, in memory that the receiver uses in place: arrays, and whatever else
    /// pickle protocol 5 sends out of band. False from the start, and then what goes over the wire is what it always was. Both ends
    /// have to agree: set it on both before anything is sent, or make them with `Pipe(oob=True)`.
    ///
    /// Only `send` and `recv` know of it. `recv_bytes` receives such an object without its buffers.
    ///
    /// Raises:
    ///     OSError: The connection is closed on this side.
    ///     ValueError: It cannot carry descriptors: it is no Unix socket.
    #[getter]
    fn oob(&self) -> bool {
        // Relaxed: nothing hangs on when it is noticed.
        self.oob.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_oob(&self, beside: bool) -> PyResult<()> {
        if beside && !carrying::can_carry(self.holding.enter(Direction::Either)?.track.fd) {
            return Err(PyValueError::new_err(
                "buffers cannot travel beside the messages of this connection, which is no Unix socket; use Pipe(oob=True)",
            ));
        }
        // Relaxed: as above.
        self.oob.store(beside, Ordering::Relaxed);
        Ok(())
    }

    /// The descriptor's number.
    ///
    /// Raises:
    ///     OSError: The connection is closed on this side.
    pub(crate) fn fileno(&self) -> PyResult<RawFd> {
        self.holding.number().ok_or_else(closed)
    }

    /// Close this end. A thread that is waiting for the connection goes on waiting, and closes it when it is done.
    fn close(&self) {
        self.holding.close();
        self.stock.clear();
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (exc_type = None, exc_value = None, exc_tb = None))]
    fn __exit__(
        slf: &Bound<'_, Self>,
        exc_type: Option<&Bound<'_, PyAny>>,
        exc_value: Option<&Bound<'_, PyAny>>,
        exc_tb: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (exc_type, exc_value, exc_tb);
        slf.call_method0(pyo3::intern!(slf.py(), "close")).map(drop)
    }

    /// Send an object, pickled. Waits until the system has taken all of it.
    ///
    /// Args:
    ///     obj: The object. If it cannot be pickled, nothing is sent.
    ///
    /// Raises:
    ///     OSError: The connection is closed on this side or cannot send, or an earlier message was cut off.
    ///     BrokenPipeError: The peer is gone.
    ///     BlockingIOError: The connection does not block, and there is no room for the message now.
    fn send(&self, py: Python<'_>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        drop(self.holding.enter(Direction::Out)?);
        if self.oob() {
            return self.send_beside(py, obj);
        }
        let pickle = Pickle::of(obj)?;
        let body = pickle.pieces(py);
        let head = Head::of(body.iter().map(Piece::len).sum());
        let line = self.holding.enter(Direction::Out)?;
        if let [only] = body.as_slice() {
            return self.send_pieces(py, &line, &mut [Piece::of(head.as_bytes()), *only]);
        }
        let mut pieces = vec![Piece::of(head.as_bytes())];
        pieces.extend(body);
        self.send_pieces(py, &line, &mut pieces)
    }

    /// Receive an object. Waits for it; the end of the stream counts.
    ///
    /// Returns:
    ///     The object that the peer has sent.
    ///
    /// Raises:
    ///     EOFError: The peer has closed its end, and everything it had sent was received.
    ///     OSError: The connection is closed on this side or cannot receive; or the stream ended inside a message.
    ///     BlockingIOError: The connection does not block, and there is no whole message now.
    fn recv<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if self.oob() {
            return self.receive_beside(py);
        }
        let message = self.receive_bytes(py, None)?;
        python::loads(py)?.call1((message,))
    }

    /// Send bytes as one message. Waits until the system has taken all of it.
    ///
    /// Args:
    ///     buf: Anything with bytes. What does not lie in one piece is copied.
    ///     offset: Where in it the message begins, in bytes.
    ///     size: How many bytes it has; None for all that follow.
    ///
    /// Raises:
    ///     ValueError: Offset or size are negative, or there are not so many bytes.
    ///     OSError: The connection is closed on this side or cannot send, or an earlier message was cut off.
    ///     BrokenPipeError: The peer is gone.
    ///     BlockingIOError: The connection does not block, and there is no room for the message now.
    #[pyo3(signature = (buf, offset = 0, size = None))]
    fn send_bytes(
        &self,
        py: Python<'_>,
        buf: &Bound<'_, PyAny>,
        offset: isize,
        size: Option<isize>,
    ) -> PyResult<()> {
        let line = self.holding.enter(Direction::Out)?;
        let source = Source::of(buf)?;
        let from = usize::try_from(offset).map_err(|_| PyValueError::new_err("offset is negative"))?;
        let most =
            source.len().checked_sub(from).ok_or_else(|| PyValueError::new_err("buffer length < offset"))?;
        let len = match size.map(usize::try_from) {
            None => most,
            Some(Err(_)) => return Err(PyValueError::new_err("size is negative")),
            Some(Ok(len)) if len > most => {
                return Err(PyValueError::new_err("buffer length < offset + size"));
            }
            Some(Ok(len)) => len,
        };
        let head = Head::of(len);
        self.send_pieces(py, &line, &mut [Piece::of(head.as_bytes()), source.piece(from, len)])
    }

    /// Receive one message as bytes. Waits for it; the end of the stream counts.
    ///
    /// Args:
    ///     maxlength: The longest message that is accepted, in bytes; None for any. After a longer one nothing more can be received.
    ///
    /// Raises:
    ///     EOFError: The peer has closed its end, and everything it had sent was received.
    ///     OSError: The message is longer; or the connection is closed on this side or cannot receive; or the stream ended inside a message.
    ///     ValueError: A negative length.
    ///     BlockingIOError: The connection does not block, and there is no whole message now.
    #[pyo3(signature = (maxlength = None))]
    fn recv_bytes<'py>(&self, py: Python<'py>, maxlength: Option<isize>) -> PyResult<Bound<'py, PyBytes>> {
        let limit = maxlength.map(u64::try_from).transpose();
        let limit = limit.map_err(|_| PyValueError::new_err("negative maxlength"))?;
        self.receive_bytes(py, limit)
    }

    /// Receive one message into memory of the caller's. Waits for it; the end of the stream counts.
    ///
    /// Args:
    ///     buf: Where to: anything that can be written to and lies in one piece.
    ///     offset: Where in it the message is to begin, in bytes.
    ///
    /// Returns:
    ///     How many bytes the message has.
    ///
    /// Raises:
    ///     BufferTooShort: It does not fit; it is the exception's argument.
    ///     EOFError: The peer has closed its end, and everything it had sent was received.
    ///     OSError: The connection is closed on this side or cannot receive; or the stream ended inside a message.
    ///     ValueError: The offset is negative or behind the end.
    ///     BlockingIOError: The connection does not block, and there is no whole message now.
    #[pyo3(signature = (buf, offset = 0))]
    fn recv_bytes_into(&self, py: Python<'_>, buf: &Bound<'_, PyAny>, offset: isize) -> PyResult<usize> {
        let line = self.holding.enter(Direction::In)?;
        let sink = Sink::of(buf)?;
        let from = usize::try_from(offset).map_err(|_| PyValueError::new_err("negative offset"))?;
        let most = sink.len().checked_sub(from).ok_or_else(|| PyValueError::new_err("offset too large"))?;
        self.holding.receiving(|partial| {
            let len = self.receive_head(py, &line, partial, None)?;
            if len > most || partial.body.is_some() {
                receive_body(py, line.track, partial, len)?;
                let message = finished(py, partial)?;
                if len > most {
                    return Err(BufferTooShort::new_err((message.unbind(),)));
                }
                sink.copy_in(py, from, message.as_bytes());
                return Ok(len);
            }
            let mut room = sink.room(from, len);
            let pulled = pull(py, line.track, &mut room);
            let arrived = len - room.left();
            if !matches!(pulled, Ok(Moved::All)) {
                // The caller's memory is the caller's: what has come of the message has to wait elsewhere.
                let mut body = Blank::new(py, len)?;
                sink.copy_out(py, from, arrived, &mut body);
                (partial.body, partial.arrived) = (Some(body), arrived);
            }
            settle(pulled, partial, len)?;
            *partial = Partial::default();
            Ok(len)
        })
    }

    /// Tell whether something can be received without waiting. The end of the stream counts.
    ///
    /// Args:
    ///     timeout: Seconds to wait for it; 0 and less look and return, None waits for ever.
    ///
    /// Raises:
    ///     OSError: The connection is closed on this side or cannot receive.
    ///     ValueError: The timeout is nan.
    #[pyo3(signature = (timeout = Some(0.0)), text_signature = "($self, timeout=0.0)")]
    fn poll(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let line = self.holding.enter(Direction::In)?;
        let deadline = deadline(timeout)?;
        let glance = poll_one(line.track.fd, Awaited::Data, Deadline::AT_ONCE, None);
        let glance = glance.map_err(IntoPyErr::into_py_err)?;
        if glance == Woken::Ready || deadline == Deadline::AT_ONCE {
            return Ok(glance == Woken::Ready);
        }
        let found = py.wait_for(|interrupts| {
            poll_one(line.track.fd, Awaited::Data, deadline, interrupts).map(Wait::from)
        })?;
        Ok(found.is_some())
    }

    /// Write bytes as they are, without a length in front: the rest of a message that was begun otherwise.
    ///
    /// Args:
    ///     buf: Anything with bytes.
    ///     offset: Where in it to begin.
    ///
    /// Returns:
    ///     How many bytes were written: all, or as many as a connection that does not block takes now.
    ///
    /// Raises:
    ///     OSError: The connection is closed on this side.
    ///     BrokenPipeError: The peer is gone.
    ///     BlockingIOError: The connection does not block, and takes nothing now.
    fn send_offset(&self, py: Python<'_>, buf: &Bound<'_, PyAny>, offset: isize) -> PyResult<usize> {
        let line = self.holding.enter(Direction::Either)?;
        let source = Source::of(buf)?;
        // COMPAT: as a slice counts, from the end if negative.
        let from =
            usize::try_from(offset).unwrap_or_else(|_| source.len().saturating_sub(offset.unsigned_abs()));
        let piece = source.piece(from, usize::MAX);
        let mut pieces = [piece];
        let all = push(py, line.track, &mut pieces)?;
        let written = piece.len() - pieces[0].len();
        if written == 0 && !all { Err(ConnError::WouldBlock.into_py_err()) } else { Ok(written) }
    }
}

/// Two descriptors that are connected, closed on exec: those of a socket pair, or the one to read from and the one to write to.
///
/// Raises:
///     OSError: No descriptor is left.
#[pyfunction]
pub(crate) fn pipe(
    duplex: bool,
    first_nonblocking: bool,
    second_nonblocking: bool,
) -> PyResult<(RawFd, RawFd)> {
    let ends = if duplex { listening::pair() } else { listening::pipe() };
    let (one, other) = ends.map_err(IntoPyErr::into_py_err)?;
    for (end, nonblocking) in [(&one, first_nonblocking), (&other, second_nonblocking)] {
        if nonblocking {
            listening::unblock(std::os::fd::AsFd::as_fd(end)).map_err(IntoPyErr::into_py_err)?;
        }
    }
    Ok((one.into_raw_fd(), other.into_raw_fd()))
}
