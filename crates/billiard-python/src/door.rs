//! The door between processes that do not know each other yet: who comes in, and how to be let in.

use std::os::fd::{IntoRawFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use billiard::conn::auth::{self, Challenge};
use billiard::conn::{self, Admitted, Introduction, Md5Policy, PATIENCE, Pause};
use billiard::sys::descriptor::{claim, lend};
use billiard::sys::{Identity, me};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::connection::deadline;
use crate::errors::IntoPyErr;
use crate::wait::{Blocking, Wait};

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
    /// Who stands at the door, unless some thread deals with them at the moment.
    inner: Mutex<Option<(Identity, conn::Doorman)>>,
}

impl Doorman {
    fn take(&self) -> conn::Doorman {
        let taken = self.inner.lock().unwrap_or_else(PoisonError::into_inner).take();
        // FORK: who stands at the parent's door is the parent's affair.
        let own = taken.and_then(|(owner, doorman)| (owner == me()).then_some(doorman));
        own.unwrap_or_else(|| {
            conn::Doorman::new(self.key.as_deref(), policy(self.md5)).with_patience(self.patience)
        })
    }

    fn put_back(&self, mut doorman: conn::Doorman) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((owner, other)) = inner.take()
            && owner == me()
        {
            doorman.join(other);
        }
        *inner = Some((me(), doorman));
    }
}

#[pymethods]
impl Doorman {
    #[new]
    #[pyo3(signature = (key, md5 = true, patience = None))]
    fn new(key: Option<Vec<u8>>, md5: bool, patience: Option<f64>) -> PyResult<Self> {
        let patience = patience.map(Duration::try_from_secs_f64).transpose();
        let patience = patience.map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self { key, md5, patience: patience.unwrap_or(PATIENCE), inner: Mutex::new(None) })
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
    ///     OSError: No descriptor is left, or the socket does not listen.
    #[pyo3(signature = (listener, timeout = None))]
    fn admit(&self, py: Python<'_>, listener: RawFd, timeout: Option<f64>) -> PyResult<Option<RawFd>> {
        let deadline = deadline(timeout)?;
        let listener = lend(listener).map_err(IntoPyErr::into_py_err)?;
        let mut doorman = self.take();
        let admitted = py.wait_for(|interrupts| {
            doorman.admit(listener, deadline, interrupts).map(|admitted| match admitted {
                Admitted::Socket(socket) => Wait::Ready(socket),
                Admitted::Paused(Pause::Interrupted) => Wait::Interrupted,
                Admitted::Paused(_) => Wait::TimedOut,
            })
        });
        self.put_back(doorman);
        Ok(admitted?.map(IntoRawFd::into_raw_fd))
    }

    /// Send everybody away who stands at the door.
    fn close(&self) {
        drop(self.inner.lock().unwrap_or_else(PoisonError::into_inner).take());
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
        introduction.go_on(interrupts).map(|socket| socket.map_or(Wait::Interrupted, Wait::Ready))
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
