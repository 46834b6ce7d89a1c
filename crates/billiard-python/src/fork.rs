//! Forking with the interpreter's hooks around it.
#![expect(unsafe_code, reason = "the interpreter's fork hooks are plain C functions")]

use std::io;

use billiard::process;
use billiard::sys::signal::{Blocked, SIGKILL};
use billiard::sys::{self, Deadline, Forked};
use pyo3::prelude::*;

use crate::errors::IntoPyErr;
use crate::process::Child;
use crate::wait;

/// FORK: whatever happens in a child, a panic included, it must not return into its parent's frames.
struct NeverBack;

impl Drop for NeverBack {
    fn drop(&mut self) {
        sys::exit_now(1);
    }
}

/// Duplicates this process, like `os.fork`: all `os.register_at_fork` hooks run. The child calls a function and leaves with
/// what that returns, or with 1 if it raises; it never returns from here.
///
/// Args:
///     in_child: What the child calls; returns the exit code.
///     pidfd: False to do without a process descriptor, as on kernels that have none.
///
/// Returns:
///     The child, which the caller has to keep.
///
/// Raises:
///     OSError: The system has no room for another process, or no descriptor is left; then no child is left either.
#[pyfunction]
#[pyo3(signature = (in_child, pidfd = true))]
pub(crate) fn fork(py: Python<'_>, in_child: &Bound<'_, PyAny>, pidfd: bool) -> PyResult<Child> {
    py.import("sys")?.call_method1("audit", ("os.fork",))?;
    // A signal that arrives while the child is being made has to wait until there is somebody to handle it without a
    // traceback: a handler that raises in the middle of the hooks would leave them half done.
    let blocked = Blocked::new().map_err(IntoPyErr::into_py_err)?;
    // FORK: no early return between the hooks: they take the interpreter's own locks and give them back.
    // SAFETY: attached, as the hook requires.
    unsafe { pyo3::ffi::PyOS_BeforeFork() };
    let forked = sys::fork();
    if matches!(forked, Ok(Forked::Child)) {
        let _never_back = NeverBack;
        // SAFETY: in the child, on the thread that forked, still attached, before any other Python call.
        unsafe { pyo3::ffi::PyOS_AfterFork_Child() };
        drop(blocked);
        wait::stop_listening_in_child(py);
        let code = in_child.call0().and_then(|code| code.extract());
        sys::exit_now(code.unwrap_or(1));
    }
    // Before anybody else in this process runs Python and could wait for it.
    let child = forked.map(|forked| match forked {
        Forked::Parent(pid) => watched(pid, pidfd),
        Forked::Child => unreachable!("the child has left"),
    });
    // SAFETY: in the parent, attached; pairs with the call above whether or not a child was made.
    unsafe { pyo3::ffi::PyOS_AfterFork_Parent() };
    drop(blocked);
    Ok(Child::started(child.flatten().map_err(IntoPyErr::into_py_err)?))
}

/// A child that cannot be watched must not run unwatched.
pub(crate) fn watched(pid: i32, pidfd: bool) -> io::Result<process::Child> {
    let by_number = || process::Child::adopt_by_number(pid);
    if !pidfd {
        return by_number();
    }
    process::Child::adopt(pid).inspect_err(|_| {
        if let Ok(child) = by_number() {
            // If it has ended by itself, so much the better.
            let _ = child.signal(SIGKILL);
            let _ = child.wait(Deadline::Never, None);
        }
    })
}
