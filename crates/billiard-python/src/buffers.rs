//! Bytes in and out without a detour: copies from Python buffers into shared memory, and views of shared memory that Python
//! can use in place.
#![expect(unsafe_code, reason = "the buffer protocol is made of raw pointers")]

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use billiard::arena::Lease;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;

/// From this size on, other threads may run while bytes are copied.
const DETACH: usize = 256 * 1024;

#[derive(Clone, Copy)]
struct Range {
    from: *const u8,
    to: *mut u8,
    len: usize,
}

// SAFETY: the pointers are only used while `transfer` borrows what they point to.
unsafe impl Send for Range {}

impl Range {
    fn transfer(self) {
        // SAFETY: both ranges are valid for `len` bytes and do not overlap: one is a Python object's memory, the other an
        // extent that was allocated for this copy and is not yet known to anybody else.
        unsafe { std::ptr::copy_nonoverlapping(self.from, self.to, self.len) }
    }
}

/// Copies a contiguous Python buffer to `to`, where there is room for it.
pub(crate) fn copy(py: Python<'_>, buffer: &PyUntypedBuffer, to: *mut u8) {
    let range = Range { from: buffer.buf_ptr().cast(), to, len: buffer.len_bytes() };
    transfer(py, range);
}

/// Copies bytes to `to`, where there is room for them.
pub(crate) fn copy_from_buffer(py: Python<'_>, bytes: &[u8], to: *mut u8) {
    transfer(py, Range { from: bytes.as_ptr(), to, len: bytes.len() });
}

fn transfer(py: Python<'_>, range: Range) {
    if range.len >= DETACH { py.detach(move || range.transfer()) } else { range.transfer() }
}

/// A view of shared memory. The memory is given back when the last view of it is gone.
#[pyclass(frozen, weakref, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct SharedView {
    lease: Arc<Lease>,
    at: usize,
    len: usize,
    readonly: bool,
}

impl SharedView {
    pub(crate) fn new(
        py: Python<'_>,
        lease: Arc<Lease>,
        at: usize,
        len: usize,
        readonly: bool,
    ) -> PyResult<Py<Self>> {
        Py::new(py, Self { lease, at, len, readonly })
    }
}

#[pymethods]
impl SharedView {
    fn __len__(&self) -> usize {
        self.len
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let this = slf.get();
        if this.readonly && flags & ffi::PyBUF_WRITABLE != 0 {
            return Err(PyBufferError::new_err("the buffer is read-only, as it was where it came from"));
        }
        let start: *mut c_void = this.lease.pointer(this.at, this.len).cast();
        let len = isize::try_from(this.len).map_err(|_| PyBufferError::new_err("the buffer is too large"))?;
        // SAFETY: `view` is valid for writing; the range lives as long as `slf`, of which the view takes a reference.
        let rc = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, c_int::from(this.readonly), flags)
        };
        if rc == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
