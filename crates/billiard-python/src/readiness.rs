//! Waiting for many things at once: which descriptor each Python object has. The wait itself is the core's.

use std::collections::HashSet;
use std::os::fd::RawFd;

use billiard::conn::WaitSet;
use billiard::sys::Deadline;
use billiard::sys::poll::Woken;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList};

use crate::connection::Connection;
use crate::errors::IntoPyErr;
use crate::wait::{Blocking, Wait, deadline};

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
///     ValueError: One of the descriptors is not open; or the timeout is nan.
#[pyfunction]
#[pyo3(signature = (object_list, timeout = None) -> "list[Any]")]
pub(crate) fn wait<'py>(
    py: Python<'py>,
    object_list: &Bound<'py, PyAny>,
    timeout: Option<f64>,
) -> PyResult<Bound<'py, PyList>> {
    let deadline = deadline(timeout)?;
    let mut objects: Vec<Bound<'py, PyAny>> = Vec::new();
    let mut known = HashSet::new();
    for object in object_list.try_iter()? {
        let object = object?;
        if known.insert(object.as_ptr() as usize) {
            objects.push(object);
        }
    }
    let mut set = WaitSet::with_capacity(objects.len());
    for object in &objects {
        set.add(&number_of(object)?);
    }
    let glance = set.wait(Deadline::AT_ONCE, None).map_err(IntoPyErr::into_py_err)?;
    if glance != Woken::Ready && deadline != Deadline::AT_ONCE {
        py.wait_for(|interrupts| set.wait(deadline, interrupts).map(Wait::from))?;
    }
    PyList::new(py, set.ready().collect::<Vec<_>>().into_iter().map(|index| &objects[index]))
}
