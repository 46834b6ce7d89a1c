//! Both ends of a manager's conversations: clients that ask, and the hall in which they are answered.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use billiard::conn::ConnError;
use billiard::conn::frame::Head;
use billiard::manager::{self, Heard, Look, Request, Seat};
use billiard::sys::descriptor::claim;
use billiard::sys::poll::Woken;
use billiard::sys::stream::Piece;
use billiard::sys::{Deadline, now};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFrozenSet, PyString, PyTuple};

use crate::errors::IntoPyErr;
use crate::pickling::Pickle;
use crate::plain;
use crate::python;
use crate::traffic::{Track, push};
use crate::wait::{Blocking, Wait};

/// So long other threads may have to wait while there is always somebody to be answered.
const TURN: Duration = Duration::from_micros(500);

/// A connection on which questions and answers take turns. Pickled objects are sent and received, as by `Connection`; what is
/// read ahead belongs to it alone.
///
/// Args:
///     number: The descriptor of a socket, which belongs to this object from now on.
///
/// Raises:
///     OSError: It is not open.
#[pyclass(frozen, weakref, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Line {
    /// Taken out while it is used. What went wrong is not put back: nobody knows what would come next.
    ///
    /// FORK: locked for moments only, while attached.
    line: Mutex<Option<manager::Line>>,
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, Option<manager::Line>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> PyResult<manager::Line> {
        self.lock().take().ok_or_else(|| PyOSError::new_err("handle is closed, or another thread uses it"))
    }

    fn using<T>(&self, body: impl FnOnce(&mut manager::Line) -> PyResult<T>) -> PyResult<T> {
        let mut line = self.take()?;
        let done = body(&mut line)?;
        *self.lock() = Some(line);
        Ok(done)
    }
}

/// How long the head of a message is that is not very long.
const HEAD: usize = 4;

/// A message that is ready to be sent.
enum Message {
    /// With its head in front.
    Plain(Vec<u8>),
    Pickled(Pickle),
}

impl Message {
    fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            let mut bytes = Vec::with_capacity(128);
            bytes.extend_from_slice(&[0; HEAD]);
            if plain::write(tuple, &mut bytes)
                && let Ok(head) = <[u8; HEAD]>::try_from(Head::of(bytes.len() - HEAD).as_bytes())
            {
                bytes[..HEAD].copy_from_slice(&head);
                return Ok(Self::Plain(bytes));
            }
        }
        Pickle::of(object).map(Self::Pickled)
    }

    /// Hands its pieces on, with the head in front.
    fn with_pieces<T>(&self, py: Python<'_>, hand: impl FnOnce(&mut [Piece<'_>]) -> T) -> T {
        match self {
            Self::Plain(bytes) => hand(&mut [Piece::of(bytes)]),
            Self::Pickled(pickle) => {
                let body = pickle.pieces(py);
                let head = Head::of(body.iter().map(Piece::len).sum());
                let mut pieces = Vec::with_capacity(body.len() + 1);
                pieces.push(Piece::of(head.as_bytes()));
                pieces.extend(body);
                hand(&mut pieces)
            }
        }
    }
}

fn send(py: Python<'_>, line: &manager::Line, message: &Message) -> PyResult<()> {
    let track = Track { fd: line.as_fd(), kind: line.kind() };
    let sent = message.with_pieces(py, |pieces| push(py, track, pieces))?;
    if sent { Ok(()) } else { Err(ConnError::WouldBlock.into_py_err()) }
}

/// What has come: an object already, or what is to be unpickled when the line is not used any more.
enum Received<'py> {
    Object(Bound<'py, PyAny>),
    Pickle(Bound<'py, PyBytes>),
}

impl<'py> Received<'py> {
    fn load(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Object(object) => Ok(object),
            Self::Pickle(bytes) => python::loads(py)?.call1((bytes,)),
        }
    }
}

fn receive<'py>(py: Python<'py>, line: &mut manager::Line) -> PyResult<Received<'py>> {
    if !py.detach(|| line.expect_soon()).map_err(IntoPyErr::into_py_err)? {
        py.wait_for(|interrupts| {
            line.hear(Deadline::Never, interrupts).map(|heard| match heard {
                Heard::Message => Wait::Ready(()),
                Heard::Interrupted => Wait::Interrupted,
                Heard::TimedOut => Wait::TimedOut,
            })
        })?;
    }
    let message = line.message();
    let received = plain::read(py, message)
        .map_or_else(|| Received::Pickle(PyBytes::new(py, message)), Received::Object);
    line.take();
    Ok(received)
}

#[pymethods]
impl Line {
    #[new]
    fn new(number: RawFd) -> PyResult<Self> {
        let socket = claim(number).map_err(IntoPyErr::into_py_err)?;
        let line = manager::Line::over(socket).map_err(IntoPyErr::into_py_err)?;
        Ok(Self { line: Mutex::new(Some(line)) })
    }

    /// Send an object and wait for the answer to it.
    ///
    /// If anything is raised once the object has been pickled the line is closed: an answer that nobody waits for any more would
    /// be taken for the next one.
    ///
    /// Raises:
    ///     EOFError: The peer has closed its end.
    ///     OSError: The line is closed, or another thread uses it.
    ///     BrokenPipeError: The peer is gone.
    fn ask<'py>(&self, py: Python<'py>, question: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let question = Message::of(question)?;
        let answer = self.using(|line| {
            send(py, line, &question)?;
            receive(py, line)
        })?;
        answer.load(py)
    }

    /// Send an object.
    ///
    /// Raises:
    ///     OSError: The line is closed, or another thread uses it.
    ///     BrokenPipeError: The peer is gone.
    fn send(&self, py: Python<'_>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        let message = Message::of(obj)?;
        self.using(|line| send(py, line, &message))
    }

    /// Receive an object. Waits for it.
    ///
    /// Raises:
    ///     EOFError: The peer has closed its end.
    ///     OSError: The line is closed, or another thread uses it; or what came is no message.
    fn recv<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.using(|line| receive(py, line))?.load(py)
    }

    /// Close this end.
    fn close(&self) {
        drop(self.lock().take());
    }

    /// Whether it is closed, or used by another thread.
    #[getter]
    fn closed(&self) -> bool {
        self.lock().is_none()
    }

    /// The descriptor's number.
    ///
    /// Raises:
    ///     OSError: The line is closed, or another thread uses it.
    fn fileno(&self) -> PyResult<RawFd> {
        let line = self.lock();
        let line = line.as_ref().ok_or_else(|| PyOSError::new_err("handle is closed"))?;
        Ok(line.as_fd().as_raw_fd())
    }
}

/// Where the clients of a manager's server sit. What can be answered at once is answered here, by the thread that serves.
///
/// Args:
///     objects: Ident -> (object, names of the methods that may be called, method -> typeid).
///     quick: The types of which no method can keep anybody waiting.
///
/// Raises:
///     OSError: No descriptor is left.
#[pyclass(frozen, weakref, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Hall {
    hall: manager::Hall,
    objects: Py<PyDict>,
    quick: Py<PyFrozenSet>,
    stopping: AtomicBool,
}

/// What is to become of a client.
enum Verdict<'py> {
    Answer(Bound<'py, PyAny>),
    /// This is the last that it hears.
    LastAnswer(Bound<'py, PyAny>),
    /// What it wants may take long.
    HandOver,
}

/// How an answer was taken.
enum Said {
    /// There may be another question already.
    AskedAgain,
    Done,
    Gone,
}

/// Unpickles what cannot execute anything.
fn load<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match plain::read(py, bytes) {
        Some(object) => Ok(object),
        None => python::loads(py)?.call1((PyBytes::new(py, bytes),)),
    }
}

impl Hall {
    fn judge<'py>(
        &self,
        py: Python<'py>,
        seat: Seat,
        server: &Bound<'py, PyAny>,
        bytes: &mut Vec<u8>,
    ) -> PyResult<Verdict<'py>> {
        bytes.clear();
        // Copied: nothing of Python's happens under the hall's lock.
        self.hall.question(seat, |question| bytes.extend_from_slice(question));
        let Some(request) = Request::read(bytes).ok().filter(|request| request.is_plain) else {
            return Ok(Verdict::HandOver);
        };
        let Some(ident) = request.ident else {
            let request = load(py, bytes)?;
            let said = server.call_method1(pyo3::intern!(py, "_desk"), (seat.number(), request))?;
            if said.is_none() {
                return Ok(Verdict::HandOver);
            }
            let (answer, stays): (Bound<'_, PyAny>, bool) = said.extract()?;
            return Ok(if stays { Verdict::Answer(answer) } else { Verdict::LastAnswer(answer) });
        };
        let Some(entry) = self.objects.bind(py).get_item(ident)? else { return Ok(Verdict::HandOver) };
        let entry = entry.cast::<PyTuple>()?;
        if !self.quick.bind(py).contains(entry.get_borrowed_item(0)?.get_type())? {
            return Ok(Verdict::HandOver);
        }
        self.call(py, seat, entry, &load(py, bytes)?, server).map(Verdict::Answer)
    }

    fn call<'py>(
        &self,
        py: Python<'py>,
        seat: Seat,
        entry: &Bound<'py, PyTuple>,
        request: &Bound<'py, PyAny>,
        server: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let object = entry.get_borrowed_item(0)?;
        if let Ok(request) = request.cast::<PyTuple>()
            && request.len() == 4
            && let Ok(method) = request.get_borrowed_item(1)?.cast::<PyString>()
            && let Ok(args) = request.get_borrowed_item(2)?.cast::<PyTuple>()
            && let Ok(kwds) = request.get_borrowed_item(3)?.cast::<PyDict>()
            && entry.get_borrowed_item(1)?.contains(method)?
            && !entry.get_borrowed_item(2)?.is_truthy()?
        {
            let kwds = (!kwds.is_empty()).then_some(kwds);
            let called = object.getattr(method).and_then(|method| method.call(args, kwds.as_deref()));
            return match called {
                Ok(result) => Ok((pyo3::intern!(py, "#RETURN"), result).into_pyobject(py)?.into_any()),
                Err(error) => server.call_method1(pyo3::intern!(py, "_failed"), (error.into_value(py),)),
            };
        }
        server.call_method1(pyo3::intern!(py, "_reply"), (seat.number(), request))
    }

    fn say<'py>(
        &self,
        py: Python<'py>,
        seat: Seat,
        server: &Bound<'py, PyAny>,
        answer: &Bound<'py, PyAny>,
    ) -> PyResult<Said> {
        let message = match Message::of(answer) {
            Ok(message) => message,
            Err(error) => {
                let said = (answer, error.into_value(py));
                Message::of(&server.call_method1(pyo3::intern!(py, "_unsendable"), said)?)?
            }
        };
        Ok(match message.with_pieces(py, |pieces| self.hall.answer(seat, pieces)) {
            Ok(true) => Said::AskedAgain,
            Ok(false) => Said::Done,
            Err(_) => Said::Gone,
        })
    }

    fn attend<'py>(
        &self,
        py: Python<'py>,
        seat: Seat,
        server: &Bound<'py, PyAny>,
        bytes: &mut Vec<u8>,
    ) -> PyResult<()> {
        loop {
            let stays = match self.hall.look(seat) {
                Ok(Look::Nothing) => return Ok(()),
                Err(_) => false,
                Ok(Look::Question) => match self.judge(py, seat, server, bytes) {
                    Ok(Verdict::Answer(answer)) => match self.say(py, seat, server, &answer)? {
                        Said::AskedAgain => true,
                        // Another look would be in vain most times: it is told when there is something.
                        Said::Done => return Ok(()),
                        Said::Gone => false,
                    },
                    Ok(Verdict::LastAnswer(answer)) => {
                        self.say(py, seat, server, &answer)?;
                        self.hall.leave(seat);
                        false
                    }
                    // What is no request is told so there, where it keeps nobody waiting.
                    Ok(Verdict::HandOver) | Err(_) => {
                        let Some(line) = self.hall.leave(seat) else { return Ok(()) };
                        let line = Py::new(py, Line { line: Mutex::new(Some(line)) })?;
                        server.call_method1(pyo3::intern!(py, "_hand_over"), (seat.number(), line))?;
                        return Ok(());
                    }
                },
            };
            if !stays {
                server.call_method1(pyo3::intern!(py, "_parted"), (seat.number(),))?;
                return Ok(());
            }
        }
    }
}

#[pymethods]
impl Hall {
    #[new]
    #[pyo3(signature = (objects: "dict[str, Any]", quick: "frozenset[type]"))]
    fn new(objects: Py<PyDict>, quick: Py<PyFrozenSet>) -> PyResult<Self> {
        let hall = manager::Hall::new().map_err(IntoPyErr::into_py_err)?;
        Ok(Self { hall, objects, quick, stopping: AtomicBool::new(false) })
    }

    /// Give a client a seat.
    ///
    /// Args:
    ///     number: The descriptor of its socket, which belongs to the hall from now on.
    ///
    /// Returns:
    ///     The number of the seat.
    ///
    /// Raises:
    ///     OSError: It is not open, or no more can be watched.
    fn adopt(&self, number: RawFd) -> PyResult<u64> {
        let socket = claim(number).map_err(IntoPyErr::into_py_err)?;
        self.hall.adopt(socket).map(Seat::number).map_err(IntoPyErr::into_py_err)
    }

    /// Answer whoever asks, until `stop` is called.
    ///
    /// Args:
    ///     server: Knows what is not decided here: ``_desk(seat, request)``, ``_reply(seat, request)``, ``_failed(exception)``,
    ///         ``_unsendable(answer, exception)``, ``_hand_over(seat, line)``, ``_parted(seat)``.
    fn serve(&self, py: Python<'_>, server: &Bound<'_, PyAny>) -> PyResult<()> {
        let (mut ready, mut bytes) = (Vec::new(), Vec::new());
        let mut turn_ends = now().after(TURN);
        // Whether several ask at a time: then a look that lets nobody else run finds the next one.
        let mut is_crowded = true;
        // Relaxed: whoever sets it rings afterwards.
        while !self.stopping.load(Ordering::Relaxed) {
            ready.clear();
            is_crowded = is_crowded
                && !self.hall.is_private()
                && self.hall.glance(&mut ready).map_err(IntoPyErr::into_py_err)?;
            if !is_crowded {
                let found =
                    py.detach(|| self.hall.expect_soon(&mut ready)).map_err(IntoPyErr::into_py_err)?;
                if !found {
                    py.wait_for(|interrupts| {
                        self.hall.wait(&mut ready, Deadline::Never, interrupts).map(|woken| match woken {
                            Woken::Ready => Wait::Ready(()),
                            Woken::TimedOut => Wait::TimedOut,
                            Woken::Interrupted => Wait::Interrupted,
                        })
                    })?;
                }
                turn_ends = now().after(TURN);
                is_crowded = ready.len() > 1;
            }
            for seat in &ready {
                if let Err(error) = self.attend(py, *seat, server, &mut bytes) {
                    // It concerns this client; the others are still to be served.
                    error.write_unraisable(py, Some(server));
                    self.hall.leave(*seat);
                }
            }
            if now() >= turn_ends {
                // No bytecode runs here after which the interpreter would let others have a turn.
                py.detach(|| ());
                turn_ends = now().after(TURN);
            }
        }
        Ok(())
    }

    /// Have `serve` return.
    fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.hall.ring();
    }

    /// Close all seats, in a forked child.
    fn abandon(&self) {
        self.hall.abandon();
    }

    fn __len__(&self) -> usize {
        self.hall.len()
    }
}
