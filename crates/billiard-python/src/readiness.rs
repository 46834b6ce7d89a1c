//! Waiting for many things at once, and how long Python waits.

use std::os::fd::RawFd;

use billiard::conn::transport::AT_ONCE;
use billiard::sys::Deadline;
use billiard::sys::poll::{Awaited, Readiness, Woken, any_ready};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList};

use crate::connection::Connection;
use crate::errors::IntoPyErr;
use crate::wait::{Blocking, Wait};

/// Deadlines of Python. One that is no number is a mistake, and waiting for ever would hide it.
pub(crate) fn deadline(timeout: Option<f64>) -> PyResult<Deadline> {
    match timeout {
        Some(seconds) if seconds.is_nan() => Err(PyValueError::new_err("the timeout is not a number")),
        Some(seconds) if seconds <= 0.0 => Ok(AT_ONCE),
        other => Ok(Deadline::from_seconds(other)),
    }
}

/// The descriptor of what somebody waits for.
fn number_of(object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let py = object.py();
    let number = if let Ok(connection) = object.cast::<Connection>() {
        connection.get().fileno()?
    } else if object.is_instance_of::<PyInt>() {
        object.extract()?
    } else if let Some(fileno) = object.getattr_opt(pyo3::intern!(py, "fileno"))? {
        fileno.call0()?.extract()?
    } else if let Some(reader) = object.getattr_opt(pyo3::intern!(py, "_reader"))? {
        // A queue is ready when what it is read from is.
        reader.call_method0(pyo3::intern!(py, "fileno"))?.extract()?
    } else {
        return Err(PyTypeError::new_err("argument must be an int, or have a fileno() method."));
    };
    if number < 0 {
        let text = format!("file descriptor cannot be a negative integer ({number})");
        return Err(PyValueError::new_err(text));
    }
    Ok(number)
}

/// Wait until something can be read from at least one of several objects.
///
/// Args:
///     object_list: The objects: connections, sockets, queues, sentinels, descriptors, and whatever has a fileno().
///     timeout: Seconds to wait; 0 and less look and return, None waits for ever.
///
/// Returns:
///     Those that are ready, each once, in their order. The end of a stream counts.
///
/// Raises:
///     OSError: One of them is closed.
///     TypeError: One of them has no descriptor.
///     ValueError: One of the descriptors is not open; or the timeout is not a number.
#[pyfunction]
#[pyo3(signature = (object_list, timeout = None) -> "list[Any]")]
pub(crate) fn wait<'py>(
    py: Python<'py>,
    object_list: &Bound<'py, PyAny>,
    timeout: Option<f64>,
) -> PyResult<Bound<'py, PyList>> {
    let deadline = deadline(timeout)?;
    let mut objects: Vec<Bound<'py, PyAny>> = Vec::new();
    for object in object_list.try_iter()? {
        let object = object?;
        if !objects.iter().any(|known| known.is(&object)) {
            objects.push(object);
        }
    }
    let mut set = Vec::with_capacity(objects.len());
    for object in &objects {
        set.push(Readiness::of(number_of(object)?, Awaited::Data));
    }
    let glance = any_ready(&mut set, AT_ONCE, None).map_err(IntoPyErr::into_py_err)?;
    if glance != Woken::Ready && deadline != AT_ONCE {
        py.wait_for(|interrupts| {
            any_ready(&mut set, deadline, interrupts).map(|woken| match woken {
                Woken::Ready => Wait::Ready(()),
                Woken::TimedOut => Wait::TimedOut,
                Woken::Interrupted => Wait::Interrupted,
            })
        })?;
    }
    let ready = PyList::empty(py);
    for (object, found) in objects.into_iter().zip(&set) {
        if found.is_unknown() {
            return Err(PyValueError::new_err(format!("invalid file descriptor {}", found.number())));
        }
        if found.is_ready() {
            ready.append(object)?;
        }
    }
    Ok(ready)
}
