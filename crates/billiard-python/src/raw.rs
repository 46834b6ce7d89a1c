//! Descriptors by their numbers, for event loops that read them themselves.

use std::io::{Error, ErrorKind};
use std::os::fd::RawFd;

use billiard::sys::descriptor::trust;
use billiard::sys::stream::read_once;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffers::Sink;
use crate::errors::IntoPyErr;

// The same number on every Linux.
const EINVAL: i32 = 22;

/// Read from a descriptor into a buffer what there is, at most as much as is asked for.
///
/// In blocking mode it waits until there is something, as `os.read` does: only a signal that this thread gets has handlers run
/// meanwhile.
///
/// Args:
///     fd: The number of the descriptor.
///     buffer: Anything that can be written to. It may be longer.
///     size: How many bytes at most; 0 for as many as the buffer has room for.
///
/// Returns:
///     How many were read; 0 at the end.
///
/// Raises:
///     BlockingIOError: There is nothing now, and the descriptor is in non-blocking mode.
///     OSError: It cannot be read; or the buffer is empty.
///     ValueError: The size is negative, or the buffer has no room for so much.
#[pyfunction]
#[pyo3(signature = (fd, buffer, size = 0, /))]
pub(crate) fn read(fd: RawFd, buffer: &Bound<'_, PyAny>, size: isize) -> PyResult<usize> {
    let sink = Sink::of(buffer)?;
    let len = match usize::try_from(size) {
        Ok(0) => sink.len(),
        Ok(len) if len <= sink.len() => len,
        Ok(len) => {
            let room = sink.len();
            return Err(PyValueError::new_err(format!("a buffer of {room} bytes has no room for {len}")));
        }
        Err(_) => return Err(PyValueError::new_err(format!("size must not be negative: {size}"))),
    };
    if len == 0 {
        return Err(Error::from_raw_os_error(EINVAL).into_py_err());
    }
    let py = buffer.py();
    let fd = trust(fd).map_err(IntoPyErr::into_py_err)?;
    loop {
        let mut room = sink.room(0, len);
        match py.detach(|| read_once(fd, &mut room)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => py.check_signals()?,
            done => return done.map_err(IntoPyErr::into_py_err),
        }
    }
}
