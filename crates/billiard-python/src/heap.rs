//! Blocks of shared memory that Python sees as buffers.
#![expect(unsafe_code, reason = "the buffer protocol is made of raw pointers")]

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::os::fd::{IntoRawFd, RawFd};

use billiard::arena::{self, Cell};
use billiard::sys::memfd;
use pyo3::exceptions::{PyBufferError, PyMemoryError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::errors::IntoPyErr;
use crate::semlock::{Place, place, received};

/// From this size on, other threads may run while a block is made.
const DETACH: usize = 256 * 1024;

/// A block of shared memory, as a buffer of bytes that can be written to. It is given back when it and all views of it are gone.
///
/// Args:
///     size: How many bytes.
///     clear: Whether they shall be zero. Otherwise they may be what a block of this process has held before.
///
/// Raises:
///     MemoryError: There is not that much.
///     OSError: No memory or descriptor is left.
#[pyclass(frozen, weakref, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Block {
    cell: Cell,
    size: usize,
}

#[pymethods]
impl Block {
    #[new]
    #[pyo3(signature = (size, clear = true))]
    fn new(py: Python<'_>, size: usize, clear: bool) -> PyResult<Self> {
        if isize::try_from(size).is_err() {
            return Err(PyMemoryError::new_err(()));
        }
        let make = || if clear { Cell::new(size) } else { Cell::uncleared(size) };
        let made = if size >= DETACH { py.detach(make) } else { make() };
        Ok(Self { cell: made.map_err(IntoPyErr::into_py_err)?, size })
    }

    /// The block that another process has sent.
    ///
    /// Args:
    ///     place: Where it lives.
    ///     size: How many bytes it has.
    ///
    /// Raises:
    ///     RuntimeError: There is no such thing there.
    ///     OSError: No descriptor is left.
    #[staticmethod]
    fn receive(place: Place, size: usize) -> PyResult<Self> {
        let cell = received(place)?;
        if size > cell.len() {
            return Err(PyValueError::new_err("the block is smaller than it was said to be"));
        }
        Ok(Self { cell, size })
    }

    /// Where it lives, as for locks.
    fn place(&self) -> PyResult<Place> {
        place(&self.cell)
    }

    /// Where it begins in the memory of this process.
    #[getter]
    fn address(&self) -> usize {
        self.cell.pointer().addr()
    }

    /// How many bytes it takes: its size, rounded up.
    #[getter]
    const fn room(&self) -> usize {
        self.cell.len()
    }

    /// The block itself, which is a buffer.
    #[getter]
    fn buffer<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    const fn __len__(&self) -> usize {
        self.size
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        let start: *mut c_void = this.cell.pointer().cast();
        let len = isize::try_from(this.size).map_err(|_| PyBufferError::new_err("the block is too large"))?;
        // SAFETY: `view` is valid for writing; the cell lives as long as `slf`, of which the view takes a reference.
        let rc = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, 0, flags) };
        if rc == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// Shared memory with a descriptor of its own, of zeros.
///
/// Args:
///     size: How many bytes.
///
/// Returns:
///     Its descriptor, which belongs to the caller.
///
/// Raises:
///     OSError: No memory or descriptor is left.
#[pyfunction]
pub(crate) fn shared_file(size: u64) -> PyResult<RawFd> {
    Ok(memfd::create(size, size).map_err(IntoPyErr::into_py_err)?.into_raw_fd())
}

/// What this process has allocated in shared memory that lives for long: locks, Values, Arrays, buffers.
///
/// Returns:
///     `segments`: how many pieces it is in; `blocks`: how many are in use; `warm`: bytes that are free and kept for the next
///     ones; `retired`: bytes that children may still use, and that are freed with the rest of their segment.
#[pyfunction]
pub(crate) fn shared_usage() -> BTreeMap<&'static str, u64> {
    let usage = arena::usage();
    BTreeMap::from([
        ("segments", usage.segments as u64),
        ("blocks", usage.cells as u64),
        ("warm", usage.warm),
        ("retired", usage.retired),
    ])
}

/// Give memory back to the system that is kept for the next blocks, where nothing near it is in use.
#[pyfunction]
pub(crate) fn shared_trim() {
    arena::trim();
}
