//! The few Python objects that the hot paths call, looked up once.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

fn cached<'py>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<PyAny>>,
    module: &str,
    name: &str,
) -> PyResult<&'py Bound<'py, PyAny>> {
    let object = cell.get_or_try_init(py, || py.import(module)?.getattr(name).map(Bound::unbind))?;
    Ok(object.bind(py))
}

/// `pickle.loads`.
pub(crate) fn loads(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    cached(py, &CELL, "pickle", "loads")
}

/// The package's pickler, with the reducers that programs have registered.
pub(crate) fn forking_pickler(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    cached(py, &CELL, "billiard.reduction", "ForkingPickler")
}

/// The type of plain functions.
pub(crate) fn function_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CELL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CELL.import(py, "types", "FunctionType")
}

/// The type of functions written in C.
pub(crate) fn builtin_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CELL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CELL.import(py, "types", "BuiltinFunctionType")
}

/// A function of `billiard._tasks`, the Python side of what is rare.
pub(crate) fn tasks<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let module = CELL.get_or_try_init(py, || {
        py.import("billiard")?;
        py.import("billiard._tasks").map(|m| m.into_any().unbind())
    })?;
    module.bind(py).getattr(name)
}

/// The standard library's `multiprocessing.TimeoutError`.
pub(crate) fn timeout_error(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    cached(py, &CELL, "billiard.exceptions", "TimeoutError")
}

/// A function of `billiard.synchronize`.
pub(crate) fn synchronize<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("billiard.synchronize")?.getattr(name)
}

/// `queue.Empty` or `queue.Full` of the standard library.
pub(crate) fn queue_error<'py>(py: Python<'py>, full: bool) -> PyResult<&'py Bound<'py, PyAny>> {
    static EMPTY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static FULL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    if full { cached(py, &FULL, "queue", "Full") } else { cached(py, &EMPTY, "queue", "Empty") }
}
