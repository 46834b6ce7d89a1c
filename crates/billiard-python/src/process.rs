//! Handles of child processes, a child's handle of its parent, and starting another program.

use std::ffi::CString;
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use billiard::process::{self, Orphan, Waited};
use billiard::sys::descriptor::{claim, lend};
use billiard::sys::signal::{Mask, SIGINT, SIGKILL};
use billiard::sys::spawn::Program;
use billiard::sys::{Deadline, ExitStatus, SignalError, memfd};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::IntoPyErr;
use crate::fork::watched;
use crate::wait::{self, Blocking, Wait};

/// How long the end of a child is waited for that was killed since nobody wanted it.
const TO_DIE: f64 = 1.0;

/// A child of this process: signals and waiting that cannot hit a stranger with the same number.
///
/// One that was just started is on trial: it is killed when this object goes before `keep` was called. An exception, such as
/// that of a signal handler, may end the start before anybody could take the child, and then nobody knows it.
#[pyclass(frozen, weakref, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Child {
    inner: Arc<process::Child>,
    kept: AtomicBool,
}

impl Drop for Child {
    fn drop(&mut self) {
        // FORK: in a copy, which is not the parent, both calls do nothing.
        if !*self.kept.get_mut() && self.inner.signal(SIGKILL).is_ok() {
            // If it cannot be reaped now, then it was somebody else's to reap.
            let _ = self.inner.wait(Deadline::from_seconds(Some(TO_DIE)), None);
        }
    }
}

impl Child {
    /// A child that was just started.
    pub(crate) fn started(child: process::Child) -> Self {
        Self { inner: Arc::new(child), kept: AtomicBool::new(false) }
    }

    pub(crate) const fn inner(&self) -> &Arc<process::Child> {
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
        let child = if pidfd { process::Child::adopt(pid) } else { process::Child::adopt_by_number(pid) };
        let child = Self::started(child.map_err(IntoPyErr::into_py_err)?);
        child.keep();
        Ok(child)
    }

    /// Let the child live on when this object goes.
    fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
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
    ///     timeout: Seconds to wait; None and inf wait for ever, 0 and less look and return.
    ///
    /// Returns:
    ///     What `poll` would: None if it still runs.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<i32>> {
        let deadline = wait::deadline(timeout)?;
        py.wait_for(|interrupts| {
            Ok::<_, std::io::Error>(match self.inner.wait(deadline, interrupts)? {
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

/// The process that a child belongs to.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Parent {
    inner: Arc<process::Parent>,
}

#[pymethods]
impl Parent {
    /// The process `pid`, as it was told to a child.
    ///
    /// Args:
    ///     pid: Its process id.
    ///     descriptor: Its process descriptor, which belongs to this object from now on; None where there are none.
    ///
    /// Raises:
    ///     OSError: There is no such descriptor.
    #[new]
    #[pyo3(signature = (pid, descriptor = None))]
    fn new(pid: i32, descriptor: Option<RawFd>) -> PyResult<Self> {
        let descriptor = descriptor.map(claim).transpose().map_err(IntoPyErr::into_py_err)?;
        let parent = process::Parent::received(pid, descriptor).map_err(IntoPyErr::into_py_err)?;
        Ok(Self { inner: Arc::new(parent) })
    }

    /// This process, for a child that it is about to start.
    ///
    /// Raises:
    ///     OSError: No descriptor is left.
    #[staticmethod]
    fn own() -> PyResult<Self> {
        Ok(Self { inner: Arc::new(process::Parent::own().map_err(IntoPyErr::into_py_err)?) })
    }

    /// The process id.
    #[getter]
    fn pid(&self) -> i32 {
        self.inner.pid()
    }

    /// A descriptor that becomes readable when the process ends and stays so; None without process descriptors. It belongs
    /// to this object.
    #[getter]
    fn sentinel(&self) -> Option<RawFd> {
        self.inner.descriptor().map(|fd| fd.as_raw_fd())
    }

    /// Whether the process still runs.
    fn is_alive(&self) -> PyResult<bool> {
        self.inner.is_alive().map_err(IntoPyErr::into_py_err)
    }

    /// From now on, the calling process does not outlive that one.
    ///
    /// Args:
    ///     may_live: True to end only if that one was killed by a signal, and to live on if it has left by itself.
    ///
    /// Raises:
    ///     OSError: The system has no room for the thread that watches.
    fn watch(&self, may_live: bool) -> PyResult<()> {
        let orphan = if may_live { Orphan::MayLive } else { Orphan::Ends };
        Arc::clone(&self.inner).watch(orphan).map_err(IntoPyErr::into_py_err)
    }
}

/// Start a program that inherits descriptors 0, 1, 2 and exactly those given, under the same numbers.
///
/// Args:
///     path: The program.
///     args: Its arguments, the name it is called by first.
///     env: Its environment, as NAME=value.
///     keep: The descriptors.
///     for_children: Whether the program is one of ours that starts children: SIGINT is blocked, so that Ctrl-C has to wait until
///         it is ready for it, and otherwise the signal mask is that with which this module was imported, whatever the calling
///         thread blocks. False for the calling thread's mask.
///     pidfd: False to do without a process descriptor, as on kernels that have none.
///
/// Returns:
///     The child, which the caller has to keep.
///
/// Raises:
///     OSError: The program cannot be started, or no descriptor is left; then nothing was started.
///     ValueError: There is a null byte in one of the strings.
#[pyfunction]
#[pyo3(signature = (path, args, env, keep, for_children = false, pidfd = true))]
pub(crate) fn spawn(
    py: Python<'_>,
    path: Vec<u8>,
    args: Vec<Vec<u8>>,
    env: Vec<Vec<u8>>,
    keep: Vec<RawFd>,
    for_children: bool,
    pidfd: bool,
) -> PyResult<Child> {
    let text = |bytes| CString::new(bytes).map_err(|_| PyValueError::new_err("embedded null byte"));
    let path = text(path)?;
    let args = args.into_iter().map(text).collect::<PyResult<Vec<_>>>()?;
    let env = env.into_iter().map(text).collect::<PyResult<Vec<_>>>()?;
    let keep = keep.into_iter().map(lend).collect::<Result<Vec<_>, _>>().map_err(IntoPyErr::into_py_err)?;
    let mask = if for_children {
        wait::first_mask().and(SIGINT)
    } else {
        Mask::current().map_err(IntoPyErr::into_py_err)?
    };
    let program = Program { path: &path, args: &args, env: &env, keep: &keep, mask: Some(&mask) };
    let child = py.detach(|| program.start().and_then(|pid| watched(pid, pidfd)));
    Ok(Child::started(child.map_err(IntoPyErr::into_py_err)?))
}

/// Anonymous memory that holds some bytes, as a file that is read from the start.
///
/// Returns:
///     Its descriptor, which belongs to the caller.
///
/// Raises:
///     OSError: No memory or descriptor is left.
#[pyfunction]
pub(crate) fn memory_file(bytes: &[u8]) -> PyResult<RawFd> {
    Ok(memfd::holding(bytes).map_err(IntoPyErr::into_py_err)?.into_raw_fd())
}
