//! Bytes in and out without a detour: copies from Python buffers into shared memory, and views of shared memory that Python
//! can use in place.
#![expect(unsafe_code, reason = "the buffer protocol is made of raw pointers")]

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use billiard::arena::{Lease, Window};
use billiard::sys::stream::{Piece, Room};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};

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

/// Shared memory that this process has been given to use in place.
#[derive(Debug)]
pub(crate) enum Loaned {
    /// Of a pool.
    Lease(Arc<Lease>),
    /// Of a queue or a connection.
    Window(Arc<Window>),
}

impl Loaned {
    fn pointer(&self, at: usize, len: usize) -> *mut u8 {
        match self {
            Self::Lease(lease) => lease.pointer(at, len),
            Self::Window(window) => window.pointer(at, len),
        }
    }
}

/// A view of shared memory. The memory is given back when the last view of it is gone.
#[pyclass(frozen, weakref, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct SharedView {
    memory: Loaned,
    at: usize,
    len: usize,
    readonly: bool,
}

impl SharedView {
    /// What unpickling is given for a buffer: a memoryview of such a view.
    pub(crate) fn over(
        py: Python<'_>,
        memory: Loaned,
        at: usize,
        len: usize,
        readonly: bool,
    ) -> PyResult<Bound<'_, PyMemoryView>> {
        PyMemoryView::from(Bound::new(py, Self { memory, at, len, readonly })?.as_any())
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
        let start: *mut c_void = this.memory.pointer(this.at, this.len).cast();
        let len = isize::try_from(this.len).map_err(|_| PyBufferError::new_err("the buffer is too large"))?;
        // SAFETY: `view` is valid for writing; the range lives as long as `slf`, of which the view takes a reference.
        let rc = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, len, c_int::from(this.readonly), flags)
        };
        if rc == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// A bytes object in the making: nobody else sees it before all of it is written.
#[derive(Debug)]
pub(crate) struct Blank {
    bytes: Py<PyBytes>,
    len: usize,
}

impl Blank {
    /// Memory for so many bytes, which says nothing yet.
    pub(crate) fn new(py: Python<'_>, len: usize) -> PyResult<Self> {
        let size = isize::try_from(len).map_err(|_| pyo3::exceptions::PyMemoryError::new_err(()))?;
        // SAFETY: attached; without a source the object is made with memory that is not initialised, which nobody reads.
        let object = unsafe { ffi::PyBytes_FromStringAndSize(std::ptr::null(), size) };
        // SAFETY: a new reference, or null with an exception set.
        let object = unsafe { Bound::from_owned_ptr_or_err(py, object) }?;
        Ok(Self { bytes: object.cast_into::<PyBytes>()?.unbind(), len })
    }

    /// How many bytes it is to have.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// What is behind the first bytes of it.
    pub(crate) fn room(&mut self, py: Python<'_>, from: usize) -> Room<'_> {
        let start = self.bytes.bind(py).as_bytes().as_ptr().cast_mut();
        let from = from.min(self.len);
        // SAFETY: the object is ours alone and has so many bytes.
        unsafe { Room::at(start.wrapping_add(from), self.len - from) }
    }

    /// The object, of which every byte has been written.
    pub(crate) fn finish(self, py: Python<'_>) -> Bound<'_, PyBytes> {
        self.bytes.into_bound(py)
    }
}

/// A bytearray with memory that says nothing yet; nobody else has it.
pub(crate) fn blank_array(py: Python<'_>, len: usize) -> PyResult<Bound<'_, PyByteArray>> {
    let size = isize::try_from(len).map_err(|_| pyo3::exceptions::PyMemoryError::new_err(()))?;
    // SAFETY: attached; without a source the memory is not initialised, and nobody reads it before it is.
    let object = unsafe { ffi::PyByteArray_FromStringAndSize(std::ptr::null(), size) };
    // SAFETY: a new reference, or null with an exception set.
    let object = unsafe { Bound::from_owned_ptr_or_err(py, object) }?;
    Ok(object.cast_into::<PyByteArray>()?)
}

/// All of a bytearray that nobody else has.
pub(crate) fn array_room<'a>(array: &'a Bound<'_, PyByteArray>) -> Room<'a> {
    // SAFETY: its memory stays where it is as long as nobody changes its length, and nobody else has it.
    unsafe { Room::at(array.data(), array.len()) }
}

/// The bytes of a buffer that is kept in one piece.
pub(crate) fn piece_of(buffer: &PyUntypedBuffer) -> Piece<'_> {
    // SAFETY: one piece of so many bytes, kept where it is by the export.
    unsafe { Piece::at(buffer.buf_ptr().cast::<u8>().cast_const(), buffer.len_bytes()) }
}

/// The bytes of a buffer that somebody else has, to be sent.
pub(crate) struct Source(PyUntypedBuffer);

impl Source {
    /// Of anything with bytes; what does not lie in one piece is copied.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)?;
        if buffer.is_c_contiguous() {
            return Ok(Self(buffer));
        }
        let py = object.py();
        let view = py.import("builtins")?.getattr("memoryview")?.call1((object,))?;
        Ok(Self(PyUntypedBuffer::get(&view.call_method0("tobytes")?)?))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len_bytes()
    }

    /// So many bytes from there on; less where it ends.
    pub(crate) fn piece(&self, from: usize, len: usize) -> Piece<'_> {
        let from = from.min(self.len());
        let len = len.min(self.len() - from);
        // SAFETY: one piece of so many bytes, kept where it is by the export that `self` holds.
        unsafe { Piece::at(self.0.buf_ptr().cast::<u8>().cast_const().wrapping_add(from), len) }
    }
}

/// The bytes of a buffer that somebody else has, to be written to.
pub(crate) struct Sink(PyUntypedBuffer);

impl Sink {
    /// Of anything whose bytes can be written to and lie in one piece.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyUntypedBuffer::get(object)?;
        if buffer.readonly() {
            return Err(PyTypeError::new_err("the buffer is read-only; pass one that can be written to"));
        }
        if !buffer.is_c_contiguous() {
            return Err(PyTypeError::new_err("the buffer does not lie in one piece; pass one that does"));
        }
        Ok(Self(buffer))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len_bytes()
    }

    /// So many bytes from there on; less where it ends.
    pub(crate) fn room(&self, from: usize, len: usize) -> Room<'_> {
        let from = from.min(self.len());
        let len = len.min(self.len() - from);
        // SAFETY: one piece of so many writable bytes, kept where it is by the export that `self` holds.
        unsafe { Room::at(self.0.buf_ptr().cast::<u8>().wrapping_add(from), len) }
    }

    /// Copies a part out, or back in.
    pub(crate) fn copy_out(&self, py: Python<'_>, from: usize, len: usize, to: &mut Blank) {
        let range = Range {
            from: self.0.buf_ptr().cast::<u8>().wrapping_add(from.min(self.len())),
            to: to.bytes.bind(py).as_bytes().as_ptr().cast_mut(),
            len: len.min(to.len()).min(self.len().saturating_sub(from)),
        };
        transfer(py, range);
    }

    pub(crate) fn copy_in(&self, py: Python<'_>, at: usize, bytes: &[u8]) {
        let len = bytes.len().min(self.len().saturating_sub(at));
        let to = self.0.buf_ptr().cast::<u8>().wrapping_add(at.min(self.len()));
        transfer(py, Range { from: bytes.as_ptr(), to, len });
    }
}
