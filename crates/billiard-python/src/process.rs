//! Handles of child processes.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use billiard::process::Waited;
use billiard::sys::{Deadline, ExitStatus, SignalError};
use pyo3::prelude::*;

use crate::errors::IntoPyErr;
use crate::wait::{Blocking, Wait};

/// A child of this process: signals and waiting that cannot hit a stranger with the same number.
#[pyclass(frozen, weakref, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Child {
    inner: Arc<billiard::process::Child>,
}

impl Child {
    pub(crate) const fn inner(&self) -> &Arc<billiard::process::Child> {
        &self.inner
    }
}

#[pymethods]
impl Child {
    /// Takes charge of a child that nobody has waited for yet.
    ///
    /// Args:
    ///     pid: The child's process id.
    ///     pidfd: False to do without a process descriptor, as on kernels that have none.
    ///
    /// Raises:
    ///     OSError: There is no such process, or no descriptor is left.
    #[new]
    #[pyo3(signature = (pid, pidfd = true))]
    fn new(pid: i32, pidfd: bool) -> PyResult<Self> {
        let child = if pidfd {
            billiard::process::Child::adopt(pid)
        } else {
            billiard::process::Child::adopt_by_number(pid)
        };
        Ok(Self { inner: Arc::new(child.map_err(IntoPyErr::into_py_err)?) })
    }

    /// The process id.
    #[getter]
    fn pid(&self) -> i32 {
        self.inner.pid()
    }

    /// A descriptor that becomes readable when the child ends and stays so; None without process descriptors. It belongs
    /// to this object.
    #[getter]
    fn sentinel(&self) -> Option<RawFd> {
        self.inner.sentinel().map(|fd| fd.as_raw_fd())
    }

    /// Tell how the child ended, without waiting.
    ///
    /// Returns:
    ///     None while it runs; its exit code, or the negated signal that killed it, or 255 if somebody else took its status.
    fn poll(&self) -> PyResult<Option<i32>> {
        Ok(self.inner.poll().map_err(IntoPyErr::into_py_err)?.map(ExitStatus::exitcode))
    }

    /// Wait until the child has ended.
    ///
    /// Args:
    ///     timeout: Seconds to wait; None, nan and inf wait for ever, 0 and less look and return.
    ///
    /// Returns:
    ///     What `poll` would: None if it still runs.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<i32>> {
        let deadline = Deadline::from_seconds(timeout);
        py.wait_for(|open| {
            Ok::<_, std::io::Error>(match self.inner.wait(deadline, open)? {
                Waited::Ended(status) => Wait::Ready(status.exitcode()),
                Waited::TimedOut => Wait::TimedOut,
                Waited::Interrupted => Wait::Interrupted,
            })
        })
    }

    /// Whether the child ended but its status went to somebody else.
    #[getter]
    fn status_lost(&self) -> PyResult<bool> {
        Ok(self.inner.poll().map_err(IntoPyErr::into_py_err)? == Some(ExitStatus::Unknown))
    }

    /// Send a signal to the child, and to nobody else.
    ///
    /// Returns:
    ///     False if the child has ended already.
    ///
    /// Raises:
    ///     OSError: No such signal, or not permitted.
    fn signal(&self, number: i32) -> PyResult<bool> {
        sent(self.inner.signal(number))
    }

    /// Send a signal to the child's process group if the child leads one, else to the child alone.
    ///
    /// Returns:
    ///     False if the child has ended already.
    fn signal_group(&self, number: i32) -> PyResult<bool> {
        sent(self.inner.signal_group(number))
    }

    fn __repr__(&self) -> String {
        format!("<Child pid={}>", self.inner.pid())
    }
}

fn sent(outcome: Result<(), SignalError>) -> PyResult<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(SignalError::Gone) => Ok(false),
        Err(error) => Err(error.into_py_err()),
    }
}
