//! The one place where errors of the core become Python exceptions.

use std::io;

use billiard::arena::CellError;
use billiard::conn::ConnError;
use billiard::conn::auth::AuthError;
use billiard::process::zygote::ZygoteError;
use billiard::queue::QueueError;
use billiard::sync::SyncError;
use billiard::sys::SignalError;
use billiard::sys::named::NameError;
use pyo3::exceptions::{
    PyAssertionError, PyBlockingIOError, PyBrokenPipeError, PyChildProcessError, PyEOFError, PyMemoryError,
    PyOSError, PyProcessLookupError, PyRuntimeError, PyValueError,
};
use pyo3::{PyErr, import_exception};

import_exception!(billiard.exceptions, AuthenticationError);
import_exception!(billiard.exceptions, BufferTooShort);
import_exception!(billiard.exceptions, HandshakeError);

// The same numbers on every Linux.
const ESRCH: i32 = 3;
const EAGAIN: i32 = 11;
const EINVAL: i32 = 22;

/// An error of the core that knows its Python exception.
pub(crate) trait IntoPyErr {
    fn into_py_err(self) -> PyErr;
}

impl IntoPyErr for io::Error {
    fn into_py_err(self) -> PyErr {
        // `OSError` picks its subclass by the number, and callers look at `errno`: both need the two-argument form.
        match self.raw_os_error() {
            Some(errno) => {
                let text = self.to_string();
                let text = text.split(" (os error").next().unwrap_or_default().to_owned();
                PyOSError::new_err((errno, text))
            }
            None => PyOSError::new_err(self.to_string()),
        }
    }
}

impl IntoPyErr for SignalError {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::Os { source, .. } => source.into_py_err(),
            gone => PyProcessLookupError::new_err((ESRCH, gone.to_string())),
        }
    }
}

impl IntoPyErr for ZygoteError {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::Os { source, .. } => source.into_py_err(),
            Self::Gone => PyBrokenPipeError::new_err(self.to_string()),
            Self::TooManyDescriptors(_) => PyValueError::new_err(format!("too many fds: {self}")),
            Self::WrongProcess => PyRuntimeError::new_err(self.to_string()),
            other => PyChildProcessError::new_err(other.to_string()),
        }
    }
}

impl IntoPyErr for CellError {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::Os { source, .. } => source.into_py_err(),
            other => PyRuntimeError::new_err(other.to_string()),
        }
    }
}

impl IntoPyErr for NameError {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::Os { source, .. } => source.into_py_err(),
            other => PyValueError::new_err(other.to_string()),
        }
    }
}

impl IntoPyErr for SyncError {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::ReleasedTooOften => PyValueError::new_err(self.to_string()),
            Self::NotOwned => PyAssertionError::new_err(self.to_string()),
            Self::Value { .. } => PyOSError::new_err((EINVAL, "Invalid argument")),
            Self::Cell(error) => error.into_py_err(),
            Self::Os { source, .. } => source.into_py_err(),
            other => PyRuntimeError::new_err(other.to_string()),
        }
    }
}

impl IntoPyErr for ConnError {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::Closed => PyEOFError::new_err(self.to_string()),
            Self::WouldBlock => PyBlockingIOError::new_err((EAGAIN, self.to_string())),
            Self::Auth(error) => error.into_py_err(),
            Self::Os { source, .. } => source.into_py_err(),
            Self::NotOpen(_) => PyValueError::new_err(self.to_string()),
            other => PyOSError::new_err(other.to_string()),
        }
    }
}

impl IntoPyErr for AuthError {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::HungUp => PyEOFError::new_err(self.to_string()),
            // COMPAT: the original asserts that a challenge is one.
            Self::NoChallenge => HandshakeError::new_err(self.to_string()),
            other => AuthenticationError::new_err(other.to_string()),
        }
    }
}

impl IntoPyErr for QueueError {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::Os { source, .. } => source.into_py_err(),
            Self::NoRoom { .. } => PyMemoryError::new_err(self.to_string()),
            Self::TooManyDone | Self::Foreign => PyValueError::new_err(self.to_string()),
            other => PyOSError::new_err(other.to_string()),
        }
    }
}
