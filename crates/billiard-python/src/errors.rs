//! The one place where errors of the core become Python exceptions.

use std::io;

use billiard::process::zygote::ZygoteError;
use billiard::queue::QueueError;
use billiard::sys::SignalError;
use pyo3::PyErr;
use pyo3::exceptions::{
    PyBrokenPipeError, PyChildProcessError, PyMemoryError, PyOSError, PyProcessLookupError, PyRuntimeError,
    PyValueError,
};

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
            gone => PyProcessLookupError::new_err((libc_esrch(), gone.to_string())),
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

const fn libc_esrch() -> i32 {
    // The same number on every Linux.
    3
}
