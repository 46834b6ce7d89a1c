//! The fork server: both ends of it.

use std::os::fd::{BorrowedFd, IntoRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use billiard::process::Parent;
use billiard::process::zygote::{self, Birth, Order, Progress, Server, Start};
use billiard::sys::descriptor::{claim, lend};
use billiard::sys::{Deadline, packet};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::IntoPyErr;
use crate::process::Child;
use crate::wait::{Blocking, Wait};

/// Two connected sockets that keep messages whole, without a name, closed on exec.
///
/// Raises:
///     OSError: No descriptor is left.
#[pyfunction]
pub(crate) fn packet_pair() -> PyResult<(RawFd, RawFd)> {
    let (ours, theirs) = packet::pair().map_err(IntoPyErr::into_py_err)?;
    Ok((ours.into_raw_fd(), theirs.into_raw_fd()))
}

/// A fork server, as its owner holds it. It ends when this object does.
///
/// Args:
///     control: One end of `packet_pair`, which belongs to this object from now on.
///     process: The server's process.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Zygote {
    inner: Arc<zygote::Zygote>,
}

#[pymethods]
impl Zygote {
    #[new]
    fn new(control: RawFd, process: &Bound<'_, Child>) -> PyResult<Self> {
        let control = claim(control).map_err(IntoPyErr::into_py_err)?;
        let process = Arc::clone(process.get().inner());
        Ok(Self { inner: zygote::Zygote::new(control, process).map_err(IntoPyErr::into_py_err)? })
    }

    /// Whether it has ended, as far as has been heard.
    #[getter]
    fn gone(&self) -> bool {
        self.inner.is_gone()
    }

    /// Send it away. Its children live on.
    fn dismiss(&self) {
        self.inner.dismiss();
    }

    /// Start a child, which the caller has to keep.
    ///
    /// Args:
    ///     data: What it is given.
    ///     keep: The descriptors that it is given.
    ///
    /// Raises:
    ///     BrokenPipeError: The fork server has ended; nothing was started.
    ///     ChildProcessError: The child ended before it could say that it runs.
    ///     OSError: No process, memory or descriptor is left.
    ///     ValueError: Too many descriptors.
    fn start(&self, py: Python<'_>, data: &[u8], keep: Vec<RawFd>) -> PyResult<Child> {
        let keep = keep.into_iter().map(lend).collect::<Result<Vec<BorrowedFd<'_>>, _>>();
        let keep = keep.map_err(IntoPyErr::into_py_err)?;
        let start = self.inner.start(data, &keep).map_err(IntoPyErr::into_py_err)?;
        let child = finish(py, start)?;
        child
            .map(Child::started)
            .ok_or_else(|| PyRuntimeError::new_err("the fork server has given a wrong answer"))
    }

    /// Have it load something, and wait until it has.
    ///
    /// Raises:
    ///     BrokenPipeError: The fork server has ended.
    fn load(&self, py: Python<'_>, what: &[u8]) -> PyResult<()> {
        finish(py, self.inner.load(what).map_err(IntoPyErr::into_py_err)?).map(drop)
    }
}

fn finish(py: Python<'_>, mut start: Start<'_>) -> PyResult<Option<billiard::process::Child>> {
    let done = py.wait_for(|interrupts| {
        start.step(Deadline::Never, interrupts).map(|progress| match progress {
            Progress::Done(child) => Wait::Ready(child),
            Progress::TimedOut => Wait::TimedOut,
            Progress::Interrupted => Wait::Interrupted,
        })
    })?;
    Ok(done.flatten())
}

/// The fork server's own end.
///
/// Args:
///     control: The other end of `packet_pair`, which belongs to this object from now on.
///     owner: Process id of the process it serves.
///     owner_descriptor: Its process descriptor, likewise; None where there are none.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct ZygoteServer {
    inner: Mutex<Option<Server>>,
}

impl ZygoteServer {
    fn lock(&self) -> MutexGuard<'_, Option<Server>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, call: impl FnOnce(&mut Server) -> std::io::Result<T>) -> PyResult<T> {
        let mut inner = self.lock();
        let server =
            inner.as_mut().ok_or_else(|| PyRuntimeError::new_err("this process is not the fork server"))?;
        call(server).map_err(IntoPyErr::into_py_err)
    }
}

#[pymethods]
impl ZygoteServer {
    #[new]
    #[pyo3(signature = (control, owner, owner_descriptor = None))]
    fn new(control: RawFd, owner: i32, owner_descriptor: Option<RawFd>) -> PyResult<Self> {
        let control = claim(control).map_err(IntoPyErr::into_py_err)?;
        let descriptor = owner_descriptor.map(claim).transpose().map_err(IntoPyErr::into_py_err)?;
        let owner = Parent::received(owner, descriptor).map_err(IntoPyErr::into_py_err)?;
        let server = Server::new(control, owner).map_err(IntoPyErr::into_py_err)?;
        Ok(Self { inner: Mutex::new(Some(server)) })
    }

    /// Wait for the next order, and meanwhile tell the owner how children have ended.
    ///
    /// Returns:
    ///     ("fork", number, data, descriptors), ("load", number, what, []), or None when the owner is gone.
    #[expect(clippy::type_complexity, reason = "it is a Python tuple, taken apart where it arrives")]
    fn next<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Option<(&'static str, u64, Bound<'py, PyBytes>, Vec<RawFd>)>> {
        let order = py.detach(|| self.lock().as_mut().map(Server::next_order));
        let order = order.ok_or_else(|| PyRuntimeError::new_err("this process is not the fork server"))?;
        Ok(match order.map_err(IntoPyErr::into_py_err)? {
            Order::Fork(Birth { id, data, fds }) => {
                let fds = fds.into_iter().map(IntoRawFd::into_raw_fd).collect();
                Some(("fork", id, PyBytes::new(py, &data), fds))
            }
            Order::Load { id, what } => Some(("load", id, PyBytes::new(py, &what), Vec::new())),
            Order::Leave => None,
        })
    }

    /// The child was forked.
    fn born(&self, number: u64, pid: i32) -> PyResult<()> {
        self.with(|server| server.born(number, pid))
    }

    /// No child could be forked.
    fn failed(&self, number: u64, errno: i32) -> PyResult<()> {
        self.with(|server| server.failed(number, &std::io::Error::from_raw_os_error(errno)))
    }

    /// What was to be loaded has been dealt with.
    fn loaded(&self, number: u64) -> PyResult<()> {
        self.with(|server| server.loaded(number))
    }

    /// In the child: tell the owner that it runs, and let go of everything that is the server's.
    ///
    /// Returns:
    ///     False if there is no owner any more.
    fn introduce(&self, number: u64) -> PyResult<bool> {
        let server = self.lock().take();
        let server = server.ok_or_else(|| PyRuntimeError::new_err("this process is not the fork server"))?;
        server.introduce(number).map_err(IntoPyErr::into_py_err)
    }
}
