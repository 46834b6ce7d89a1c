//! Shared memory with a name, for `billiard.shared_memory`.

use std::os::fd::{IntoRawFd, OwnedFd, RawFd};

use billiard::sys::descriptor::lend;
use billiard::sys::named::{self, NameError, Sweep};
use pyo3::prelude::*;

use crate::errors::IntoPyErr;

/// Has something done that a signal may end: then its handler runs, and it is tried again.
fn patiently(py: Python<'_>, mut step: impl FnMut() -> Result<OwnedFd, NameError> + Send) -> PyResult<RawFd> {
    loop {
        match py.detach(&mut step) {
            Ok(fd) => return Ok(fd.into_raw_fd()),
            Err(NameError::Os { source, .. }) if source.kind() == std::io::ErrorKind::Interrupted => {
                py.check_signals()?;
            }
            Err(error) => return Err(error.into_py_err()),
        }
    }
}

/// Make shared memory of zeros, and say that it is in use here.
///
/// Args:
///     name: Its name, without slashes.
///     size: How many bytes.
///     keeper: The process id of the one while which runs nobody sweeps the name away; None to leave it to `named_remove`.
///
/// Returns:
///     The descriptor, which belongs to the caller.
///
/// Raises:
///     FileExistsError: There is one of that name.
///     OSError: No memory or descriptor is left.
///     ValueError: No file can have this name.
#[pyfunction]
#[pyo3(signature = (name, size, keeper = None))]
pub(crate) fn named_create(py: Python<'_>, name: &str, size: u64, keeper: Option<i32>) -> PyResult<RawFd> {
    patiently(py, || named::create(name, size, keeper))
}

/// Open shared memory, and say that it is in use here.
///
/// Returns:
///     The descriptor, which belongs to the caller.
///
/// Raises:
///     FileNotFoundError: There is none of that name.
///     OSError: It may not be opened, or no descriptor is left.
///     ValueError: No file can have this name.
#[pyfunction]
pub(crate) fn named_open(py: Python<'_>, name: &str) -> PyResult<RawFd> {
    patiently(py, || named::open(name))
}

/// Say that shared memory is not in use here any more, although it is still open.
///
/// Raises:
///     OSError: It is not.
#[pyfunction]
pub(crate) fn named_let_go(fd: RawFd) -> PyResult<()> {
    lend(fd).and_then(named::let_go).map_err(IntoPyErr::into_py_err)
}

/// Remove a name. Whoever has the memory open keeps it.
///
/// Raises:
///     FileNotFoundError: There is none.
///     ValueError: No file can have this name.
#[pyfunction]
pub(crate) fn named_remove(name: &str) -> PyResult<()> {
    named::remove(name).map_err(IntoPyErr::into_py_err)
}

/// Remove the names that begin so, whoever uses the memory.
#[pyfunction]
pub(crate) fn named_remove_all(py: Python<'_>, prefix: &str) {
    py.detach(|| named::remove_all(prefix));
}

/// Remove the names that nobody needs any more: whose keeper is over, and which nobody has open.
///
/// Args:
///     leaving: Whether this process counts as over.
#[pyfunction]
#[pyo3(signature = (leaving = false))]
pub(crate) fn named_sweep(py: Python<'_>, leaving: bool) {
    py.detach(|| named::sweep(if leaving { Sweep::Leaving } else { Sweep::Passing }));
}
