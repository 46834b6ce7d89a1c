//! Forking with the interpreter's hooks around it.
#![expect(unsafe_code, reason = "the interpreter's fork hooks are plain C functions")]

use billiard::sys::{self, Forked};
use pyo3::prelude::*;

use crate::errors::IntoPyErr;
use crate::wait;

/// Duplicates this process, like `os.fork`: all `os.register_at_fork` hooks run.
///
/// Returns:
///     0 in the child, the child's process id in the parent.
///
/// Raises:
///     OSError: The system has no room for another process.
#[pyfunction]
pub(crate) fn fork(py: Python<'_>) -> PyResult<i32> {
    py.import("sys")?.call_method1("audit", ("os.fork",))?;
    // FORK: no early return between the hooks: they take the interpreter's own locks and give them back.
    // SAFETY: attached, as the hook requires.
    unsafe { pyo3::ffi::PyOS_BeforeFork() };
    let forked = sys::fork();
    if matches!(forked, Ok(Forked::Child)) {
        wait::open_signals_in_child();
        // SAFETY: in the child, on the thread that forked, still attached, before any other Python call.
        unsafe { pyo3::ffi::PyOS_AfterFork_Child() };
    } else {
        // SAFETY: in the parent, attached; pairs with the call above whether or not a child was made.
        unsafe { pyo3::ffi::PyOS_AfterFork_Parent() };
    }
    match forked {
        Ok(Forked::Child) => Ok(0),
        Ok(Forked::Parent(pid)) => Ok(pid),
        Err(error) => Err(error.into_py_err()),
    }
}
