//! The door between processes that do not know each other yet: who comes in, and how to be let in.

use std::os::fd::{AsFd, IntoRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use billiard::conn::auth::{self, Challenge};
use billiard::conn::{self, Admitted, Introduced, Introduction, Md5Policy, PATIENCE, Pause};
use billiard::sys::descriptor::{claim, lend};
use billiard::sys::{Deadline, EventFd, Identity, me};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::IntoPyErr;
use crate::wait::{Blocking, Wait, deadline};

fn closed() -> PyErr {
    PyOSError::new_err("listener is closed")
}

const fn policy(md5: bool) -> Md5Policy {
    if md5 { Md5Policy::Accepted } else { Md5Policy::Refused }
}

/// Lets in who holds a key. Who says nothing keeps nobody else waiting.
///
/// Args:
///     key: The key; None lets everybody in.
///     md5: Whether those who know only MD5 are talked to.
///     patience: Seconds that somebody may take to prove that it holds the key.
///
/// Raises:
///     ValueError: The patience is negative, or not a number.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Doorman {
    key: Option<Vec<u8>>,
    patience: Duration,
    md5: bool,
    /// FORK: locked only while attached, so that no thread that is not copied can hold it.
    inner: Mutex<Entrance>,
}

#[derive(Debug, Default)]
struct Entrance {
    /// Nobody is let in any more.
    closed: bool,
    door: Option<Door>,
}

impl Entrance {
    /// FORK: the door of this process.
    fn ours(&mut self) -> Option<&mut Door> {
        self.door.as_mut().filter(|door| door.owner == me())
    }
}

/// What the threads of one process that wait at the same door have in common.
#[derive(Debug)]
struct Door {
    /// FORK: who stands at the parent's door is the parent's affair, and so is its bell.
    owner: Identity,
    waiting: usize,
    /// Those whom a thread has left standing there, since it had got whom it waited for.
    left: Option<conn::Doorman>,
    /// Tells the threads that wait that there are some.
    bell: Arc<EventFd>,
}

impl Doorman {
    fn lock(&self) -> MutexGuard<'_, Entrance> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes to the door.
    fn enter(&self) -> PyResult<Arc<EventFd>> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(closed());
        }
        let door = match &mut inner.door {
            Some(door) if door.owner == me() => door,
            other => {
                let bell = Arc::new(EventFd::new().map_err(IntoPyErr::into_py_err)?);
                other.insert(Door { owner: me(), waiting: 0, left: None, bell })
            }
        };
        door.waiting += 1;
        Ok(Arc::clone(&door.bell))
    }

    /// Takes over whom others have left. The bell of a door that was closed goes on ringing, for everybody who waits there.
    fn take_over(&self, doorman: &mut conn::Doorman) -> PyResult<()> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(closed());
        }
        if let Some(door) = inner.ours() {
            door.bell.clear();
            if let Some(left) = door.left.take() {
                doorman.join(left);
            }
        }
        Ok(())
    }

    /// Leaves the door, and whoever stands there to the others.
    fn leave(&self, mut doorman: conn::Doorman) {
        let mut inner = self.lock();
        let shut = inner.closed;
        if let Some(door) = inner.ours() {
            door.waiting = door.waiting.saturating_sub(1);
            if shut {
                return;
            }
            if let Some(left) = door.left.take() {
                doorman.join(left);
            }
            if !doorman.is_idle() {
                door.left = Some(doorman);
                if door.waiting > 0 {
                    door.bell.ring();
                }
            }
        }
    }
}

#[pymethods]
impl Doorman {
    #[new]
    #[pyo3(signature = (key, md5 = true, patience = None))]
    fn new(key: Option<Vec<u8>>, md5: bool, patience: Option<f64>) -> PyResult<Self> {
        let patience = patience.map(Duration::try_from_secs_f64).transpose();
        let patience = patience.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self { key, md5, patience: patience.unwrap_or(PATIENCE), inner: Mutex::default() })
    }

    /// Wait for the next one who may come in.
    ///
    /// Args:
    ///     listener: The listening socket, which is put into non-blocking mode.
    ///     timeout: Seconds to wait; None waits for ever.
    ///
    /// Returns:
    ///     The descriptor of its socket, which belongs to the caller; None if nobody came in time.
    ///
    /// Raises:
    ///     AuthenticationError: Somebody does not hold the key.
    ///     EOFError: Somebody went away without having proved anything.
    ///     OSError: The door was closed, also while somebody waited there; no descriptor is left; or the socket does not listen.
    #[pyo3(signature = (listener, timeout = None))]
    fn admit(&self, py: Python<'_>, listener: RawFd, timeout: Option<f64>) -> PyResult<Option<RawFd>> {
        let deadline = deadline(timeout)?;
        let bell = self.enter()?;
        let mut doorman =
            conn::Doorman::new(self.key.as_deref(), policy(self.md5)).with_patience(self.patience);
        // A copy: whoever closes the socket meanwhile leaves its number to others.
        let listener = match lend(listener).and_then(|fd| fd.try_clone_to_owned()) {
            Ok(copy) => copy,
            Err(error) => {
                self.leave(doorman);
                return Err(error.into_py_err());
            }
        };
        let admitted = loop {
            if let Err(error) = self.take_over(&mut doorman) {
                break Err(error);
            }
            let admitted = py.wait_for(|interrupts| {
                doorman.admit(listener.as_fd(), Some(bell.as_fd()), deadline, interrupts).map(|admitted| {
                    match admitted {
                        Admitted::Socket(socket) => Wait::Ready(Some(socket)),
                        // A signal, or the bell: both are looked after outside.
                        Admitted::Paused(Pause::Interrupted) => Wait::Ready(None),
                        Admitted::Paused(_) => Wait::TimedOut,
                    }
                })
            });
            match admitted {
                Ok(Some(None)) => {}
                Ok(Some(Some(socket))) => break Ok(Some(socket.into_raw_fd())),
                Ok(None) => break Ok(None),
                Err(error) => break Err(error),
            }
        };
        self.leave(doorman);
        admitted
    }

    /// Send everybody away who stands at the door, and let nobody in any more. Threads that wait there are told.
    fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        if let Some(door) = inner.ours() {
            drop(door.left.take());
            door.bell.ring();
        }
    }
}

/// Prove to a listener that we hold the key, and have it prove the same.
///
/// Args:
///     socket: The descriptor of a socket that is connected to it. It is closed if anything is raised.
///     key: The key.
///     md5: Whether one who knows only MD5 is talked to.
///
/// Returns:
///     The descriptor, which belongs to the caller.
///
/// Raises:
///     AuthenticationError: One of both does not hold the key.
///     EOFError: The listener has closed the connection.
#[pyfunction]
#[pyo3(signature = (socket, key, md5 = true))]
pub(crate) fn introduce(py: Python<'_>, socket: RawFd, key: &[u8], md5: bool) -> PyResult<RawFd> {
    let socket = claim(socket).map_err(IntoPyErr::into_py_err)?;
    let mut introduction = Introduction::begin(socket, key, policy(md5)).map_err(IntoPyErr::into_py_err)?;
    let introduced = py.wait_for(|interrupts| {
        introduction.go_on(Deadline::Never, interrupts).map(|introduced| match introduced {
            Introduced::Socket(socket) => Wait::Ready(socket),
            Introduced::Paused(_) => Wait::Interrupted,
        })
    })?;
    introduced.map(IntoRawFd::into_raw_fd).ok_or_else(|| conn::ConnError::Closed.into_py_err())
}

/// A challenge that nobody has seen before.
///
/// Raises:
///     OSError: The system has no randomness to give.
#[pyfunction]
pub(crate) fn new_challenge(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    let challenge = Challenge::fresh().map_err(IntoPyErr::into_py_err)?;
    Ok(PyBytes::new(py, challenge.message()))
}

/// Answer a message that should be a challenge.
///
/// Raises:
///     AuthenticationError: It is none, or asks for a digest that is not to be had.
#[pyfunction]
#[pyo3(signature = (key, message, md5 = true))]
pub(crate) fn answer_challenge<'py>(
    py: Python<'py>,
    key: &[u8],
    message: &[u8],
    md5: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let answer = auth::answer(key, message, policy(md5)).map_err(IntoPyErr::into_py_err)?;
    Ok(PyBytes::new(py, &answer))
}

/// Judge the answer to a challenge of `new_challenge`.
///
/// Raises:
///     AuthenticationError: It is not of somebody who holds the key.
#[pyfunction]
#[pyo3(signature = (key, challenge, answer, md5 = true))]
pub(crate) fn judge_answer(key: &[u8], challenge: &[u8], answer: &[u8], md5: bool) -> PyResult<()> {
    let challenge = Challenge::sent(challenge);
    let challenge = challenge.ok_or_else(|| PyValueError::new_err("that is no challenge"))?;
    challenge.judge(key, answer, policy(md5)).map_err(IntoPyErr::into_py_err)
}
