//! What a pool gives each of its workers once: sealed memory, in which Python sees buffers.
#![expect(unsafe_code, reason = "the buffer protocol is made of raw pointers")]

use std::ffi::{c_int, c_void};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use billiard::arena::{self, Contents, Packing};
use billiard::sys::descriptor::claim;
use pyo3::exceptions::{PyBufferError, PyOSError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyMemoryView;

use crate::buffers::Source;
use crate::errors::IntoPyErr;

#[derive(Debug)]
enum State {
    Packing(Packing),
    Sealed(arena::Bundle),
    Closed,
}

/// Bytes in several parts, written once and then sealed, for many processes that read them in place.
///
/// Raises:
///     OSError: No memory or descriptor is left.
#[pyclass(frozen, weakref, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Bundle {
    // FORK: locked for moments only, while attached.
    state: Mutex<State>,
}

fn closed() -> PyErr {
    PyOSError::new_err("the shared memory is closed, or not sealed yet")
}

impl Bundle {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is packed, which is closed to everybody else until it is put back.
    fn take_packing(&self) -> PyResult<Packing> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Closed) {
            State::Packing(packing) => Ok(packing),
            other => {
                *state = other;
                Err(closed())
            }
        }
    }
}

#[pymethods]
impl Bundle {
    #[new]
    fn new() -> PyResult<Self> {
        let packing = Packing::new().map_err(IntoPyErr::into_py_err)?;
        Ok(Self { state: Mutex::new(State::Packing(packing)) })
    }

    /// The bundle that another process has made.
    ///
    /// Args:
    ///     fd: Its descriptor, which belongs to this object from now on.
    ///
    /// Raises:
    ///     OSError: It is not open, or not sealed.
    #[staticmethod]
    fn receive(fd: RawFd) -> PyResult<Self> {
        let bundle = claim(fd).and_then(arena::Bundle::receive).map_err(IntoPyErr::into_py_err)?;
        Ok(Self { state: Mutex::new(State::Sealed(bundle)) })
    }

    /// Add bytes to the last part, as to a file.
    ///
    /// Returns:
    ///     How many bytes they are.
    ///
    /// Raises:
    ///     OSError: No memory is left; or it is sealed.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let source = Source::of(data)?;
        let mut left = source.piece(0, source.len());
        loop {
            let mut packing = self.take_packing()?;
            let done = py.detach(|| packing.append(&mut left));
            *self.lock() = State::Packing(packing);
            if done.map_err(IntoPyErr::into_py_err)? {
                return Ok(source.len());
            }
            py.check_signals()?;
        }
    }

    /// End the last part, and begin another one.
    ///
    /// Raises:
    ///     OSError: It is sealed.
    fn begin_part(&self) -> PyResult<()> {
        let State::Packing(packing) = &mut *self.lock() else { return Err(closed()) };
        packing.begin_part();
        Ok(())
    }

    /// From now on nobody can write to it, in whatever process.
    ///
    /// Raises:
    ///     OSError: No memory is left; or it is sealed.
    fn seal(&self) -> PyResult<()> {
        let sealed = self.take_packing()?.seal().map_err(IntoPyErr::into_py_err)?;
        *self.lock() = State::Sealed(sealed);
        Ok(())
    }

    /// The parts, as read-only views, which keep the memory.
    ///
    /// Raises:
    ///     OSError: It is no bundle, or closed; or no memory is left.
    fn open<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyMemoryView>>> {
        let contents = match &*self.lock() {
            State::Sealed(bundle) => bundle.open().map_err(IntoPyErr::into_py_err)?,
            _ => return Err(closed()),
        };
        let view = |index| {
            let part = Bound::new(py, Part { contents: Arc::clone(&contents), index })?;
            PyMemoryView::from(part.as_any())
        };
        (0..contents.count()).map(view).collect()
    }

    /// The descriptor's number, to be given to others.
    ///
    /// Raises:
    ///     OSError: It is closed, or not sealed yet.
    fn fileno(&self) -> PyResult<RawFd> {
        match &*self.lock() {
            State::Sealed(bundle) => Ok(bundle.as_fd().as_raw_fd()),
            _ => Err(closed()),
        }
    }

    /// Let go of the descriptor. Views keep the memory.
    fn close(&self) {
        *self.lock() = State::Closed;
    }
}

/// One part of what a bundle holds: a read-only buffer.
#[pyclass(frozen, weakref, module = "billiard._billiard")]
#[derive(Debug)]
struct Part {
    contents: Arc<Contents>,
    index: usize,
}

#[pymethods]
impl Part {
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if flags & ffi::PyBUF_WRITABLE != 0 {
            return Err(PyBufferError::new_err("the memory is sealed: nobody can write to it"));
        }
        let this = slf.get();
        let bytes = this.contents.part(this.index).unwrap_or_default();
        let len = isize::try_from(bytes.len()).map_err(|_| PyBufferError::new_err("it is too large"))?;
        let start: *mut c_void = bytes.as_ptr().cast_mut().cast();
        // SAFETY: `view` is valid for writing; the part lives as long as `slf`, of which the view takes a reference; it is
        // exported as read-only.
        let rc = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, 1, flags) };
        if rc == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
