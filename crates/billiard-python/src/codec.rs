//! Python values as bytes. Exact builtin scalars, and tuples of them, have a form of their own that costs nothing to make;
//! everything else is a pickle, with large buffers beside it instead of inside.
//!
//! A value begins with a tag byte. `P` is followed by a pickle up to the end. `B` announces buffers: their count, the length
//! of the pickle, the lengths of the buffers; then the pickle; then each buffer, aligned.

use std::sync::{Arc, Mutex, PoisonError};

use billiard::arena::Lease;
use billiard::pool::Message;
use billiard::queue::QueueError;
use billiard::sys::stream::Piece;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyByteArray, PyBytes, PyFloat, PyInt, PyList, PyMemoryView, PyString, PyTuple};

use crate::buffers::{Loaned, SharedView, copy_from_buffer};
use crate::errors::IntoPyErr;
use crate::python;

const NONE: u8 = b'N';
const TRUE: u8 = b'T';
const FALSE: u8 = b'F';
const BYTE: u8 = b'b';
const INT: u8 = b'i';
const FLOAT: u8 = b'f';
const STR: u8 = b's';
const BYTES: u8 = b'y';
const TUPLE: u8 = b'(';
pub(crate) const PICKLE: u8 = b'P';
pub(crate) const BUFFERS: u8 = b'B';

const DEEPEST: u8 = 4;
/// Longer strings and bytes gain nothing from the short form.
const LONGEST: usize = 4096;
/// Buffers from this size on travel beside the pickle.
const BESIDE: usize = 32 * 1024;
pub(crate) const ALIGN: usize = 64;
/// Bytes before the table of buffers: tag, number of buffers, length of the pickle.
pub(crate) const BESIDE_HEAD: usize = 13;

/// Appends the short form of `value`. False: it has none, and `out` is as it was.
pub(crate) fn put_short(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let put = put(value, out, 0);
    if !put {
        out.truncate(start);
    }
    put
}

fn put(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, depth: u8) -> bool {
    if value.is_none() {
        out.push(NONE);
    } else if value.is_exact_instance_of::<PyInt>() {
        let Ok(number) = value.extract::<i64>() else { return false };
        if let Ok(byte) = i8::try_from(number) {
            out.extend([BYTE, byte.cast_unsigned()]);
        } else {
            out.push(INT);
            out.extend(number.to_le_bytes());
        }
    } else if value.is_exact_instance_of::<PyString>() {
        let Ok(text) = value.extract::<&str>() else { return false };
        return put_bytes(STR, text.as_bytes(), out);
    } else if let Ok(number) = value.cast_exact::<PyFloat>() {
        out.push(FLOAT);
        out.extend(number.value().to_le_bytes());
    } else if let Ok(flag) = value.cast_exact::<PyBool>() {
        out.push(if flag.is_true() { TRUE } else { FALSE });
    } else if let Ok(tuple) = value.cast_exact::<PyTuple>() {
        let Ok(len) = u8::try_from(tuple.len()) else { return false };
        if depth == DEEPEST {
            return false;
        }
        out.extend([TUPLE, len]);
        return tuple.iter_borrowed().all(|item| put(&item, out, depth + 1));
    } else if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        return put_bytes(BYTES, bytes.as_bytes(), out);
    } else {
        return false;
    }
    true
}

fn put_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) -> bool {
    if bytes.len() > LONGEST {
        return false;
    }
    out.push(tag);
    out.extend((bytes.len() as u16).to_le_bytes());
    out.extend(bytes);
    true
}

/// Reads what [`put_short`] wrote.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

pub(crate) fn torn() -> PyErr {
    PyValueError::new_err("a message of the pool is malformed")
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn take(&mut self, len: usize) -> PyResult<&'a [u8]> {
        let end = self.at.checked_add(len).ok_or_else(torn)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(torn)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> PyResult<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| torn())
    }

    pub(crate) fn byte(&mut self) -> PyResult<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u32(&mut self) -> PyResult<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> PyResult<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub(crate) fn text(&mut self) -> PyResult<String> {
        let len = self.u32()? as usize;
        Ok(String::from_utf8_lossy(self.take(len)?).into_owned())
    }

    /// The next short value.
    pub(crate) fn value<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self.byte()? {
            NONE => py.None().into_bound(py),
            TRUE => PyBool::new(py, true).to_owned().into_any(),
            FALSE => PyBool::new(py, false).to_owned().into_any(),
            BYTE => self.byte()?.cast_signed().into_pyobject(py)?.into_any(),
            INT => i64::from_le_bytes(self.array()?).into_pyobject(py)?.into_any(),
            FLOAT => PyFloat::new(py, f64::from_le_bytes(self.array()?)).into_any(),
            STR => {
                let len = u16::from_le_bytes(self.array()?);
                let text = std::str::from_utf8(self.take(usize::from(len))?).map_err(|_| torn())?;
                PyString::new(py, text).into_any()
            }
            BYTES => {
                let len = u16::from_le_bytes(self.array()?);
                PyBytes::new(py, self.take(usize::from(len))?).into_any()
            }
            TUPLE => {
                let len = self.byte()?;
                let items = (0..len).map(|_| self.value(py)).collect::<PyResult<Vec<_>>>()?;
                PyTuple::new(py, items)?.into_any()
            }
            _ => return Err(torn()),
        })
    }
}

/// Where a pickler writes to.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug, Default)]
struct Sink {
    bytes: Mutex<Vec<u8>>,
    buffers: Mutex<Vec<Py<PyAny>>>,
}

impl Sink {
    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn buffers(&self) -> std::sync::MutexGuard<'_, Vec<Py<PyAny>>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Sink {
    /// Takes a piece of a pickle.
    fn write(&self, piece: &Bound<'_, PyAny>) -> PyResult<usize> {
        // The pickler writes large bytearrays and the like as they are.
        let piece = match piece.cast::<PyBytes>() {
            Ok(piece) => piece.clone(),
            Err(_) => piece.py().get_type::<PyBytes>().call1((piece,))?.cast_into()?,
        };
        self.bytes().extend_from_slice(piece.as_bytes());
        Ok(piece.as_bytes().len())
    }

    /// Decides about a buffer: false, it travels beside the pickle; true, inside.
    fn buffer(&self, buffer: Bound<'_, PyAny>) -> bool {
        let beside = PyUntypedBuffer::get(&buffer)
            .is_ok_and(|b| b.len_bytes() >= BESIDE && (b.is_c_contiguous() || b.is_fortran_contiguous()));
        if beside {
            self.buffers().push(buffer.unbind());
        }
        !beside
    }
}

/// A reusable pickler.
struct Pickler {
    pickler: Py<PyAny>,
    sink: Py<Sink>,
}

impl Pickler {
    fn new(class: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = class.py();
        let sink = Py::new(py, Sink::default())?;
        let kwargs = pyo3::types::PyDict::new(py);
        kwargs.set_item("buffer_callback", sink.bind(py).getattr("buffer")?)?;
        let pickler = class.call((sink.clone_ref(py), 5), Some(&kwargs))?.unbind();
        Ok(Self { pickler, sink })
    }
}

/// A pickle with the buffers that travel beside it.
pub(crate) struct Pickled {
    /// The caller's head, the tag, the pickle.
    pub(crate) bytes: Vec<u8>,
    /// Where the tag stands.
    tag_at: usize,
    buffers: Vec<PyUntypedBuffer>,
}

/// Pickles values; safe for several threads at once.
pub(crate) struct Encoder {
    /// The class of the picklers.
    class: Py<PyAny>,
    /// Whether it sends functions by name, so that what it has once sent stays true.
    by_name: bool,
    spare: Mutex<Vec<Pickler>>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl Encoder {
    /// An encoder with picklers of this class.
    pub(crate) fn new(class: Bound<'_, PyAny>) -> PyResult<Self> {
        let by_name = class.is(python::forking_pickler(class.py())?);
        Ok(Self { class: class.unbind(), by_name, spare: Mutex::default() })
    }

    /// Whether functions are sent by name. Otherwise a function is sent as it is at that moment, globals and all.
    pub(crate) const fn sends_by_name(&self) -> bool {
        self.by_name
    }

    /// Pickles `value` behind `head`.
    pub(crate) fn pickle(&self, value: &Bound<'_, PyAny>, head: &[u8]) -> PyResult<Pickled> {
        let py = value.py();
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // Reducers are arbitrary code and may submit to the same pool: nobody else may use this pickler meanwhile.
        let pickler = spare.map_or_else(|| Pickler::new(self.class.bind(py)), Ok)?;
        let sink = pickler.sink.get();
        sink.bytes().extend_from_slice(head);
        sink.bytes().push(PICKLE);
        let dumped = pickler.pickler.call_method1(py, pyo3::intern!(py, "dump"), (value,));
        let bytes = std::mem::take(&mut *sink.bytes());
        let held = std::mem::take(&mut *sink.buffers());
        dumped?;
        pickler.pickler.call_method0(py, pyo3::intern!(py, "clear_memo"))?;
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(pickler);
        let buffers = held.iter().map(|b| PyUntypedBuffer::get(b.bind(py))).collect::<PyResult<Vec<_>>>()?;
        Ok(Pickled { bytes, tag_at: head.len(), buffers })
    }
}

/// How a message with buffers is laid out.
struct Layout {
    head: Vec<u8>,
    starts: Vec<usize>,
    len: usize,
}

impl Pickled {
    pub(crate) fn has_buffers(&self) -> bool {
        !self.buffers.is_empty()
    }

    /// The pickle itself.
    pub(crate) fn pickle(&self) -> &[u8] {
        &self.bytes[self.tag_at + 1..]
    }

    fn layout(&self) -> Layout {
        let mut head = self.bytes[..self.tag_at].to_vec();
        head.push(BUFFERS);
        head.extend((self.buffers.len() as u32).to_le_bytes());
        head.extend((self.pickle().len() as u64).to_le_bytes());
        for buffer in &self.buffers {
            let tagged = buffer.len_bytes() as u64 | u64::from(buffer.readonly()) << 63;
            head.extend(tagged.to_le_bytes());
        }
        let mut len = head.len() + self.pickle().len();
        let starts = self.buffers.iter().map(|buffer| {
            let start = len.next_multiple_of(ALIGN);
            len = start + buffer.len_bytes();
            start
        });
        let starts = starts.collect();
        Layout { head, starts, len }
    }

    /// For buffers that lie apart from the pickle: the head, where each of them begins, and how many bytes they are.
    pub(crate) fn beside(&self) -> (Vec<u8>, Vec<usize>, usize) {
        let mut len = 0_usize;
        let starts = self.buffers.iter().map(|buffer| {
            let start = len.next_multiple_of(ALIGN);
            len = start + buffer.len_bytes();
            start
        });
        let starts = starts.collect();
        (self.layout().head, starts, len)
    }

    /// The buffers.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        self.buffers.iter().map(crate::buffers::piece_of)
    }

    /// How many bytes it will be.
    pub(crate) fn len(&self) -> usize {
        if self.has_buffers() { self.layout().len } else { self.bytes.len() }
    }

    /// Has `write` called with each part and its place.
    pub(crate) fn write_parts(
        &self,
        py: Python<'_>,
        write: impl Fn(usize, Piece<'_>) -> Result<(), QueueError> + Sync,
    ) -> PyResult<()> {
        let layout;
        let mut parts = Vec::new();
        if self.has_buffers() {
            layout = self.layout();
            parts.push((0, Piece::of(&layout.head)));
            parts.push((layout.head.len(), Piece::of(self.pickle())));
            parts.extend(layout.starts.iter().copied().zip(self.pieces()));
        } else {
            parts.push((0, Piece::of(&self.bytes)));
        }
        py.detach(|| parts.into_iter().try_for_each(|(at, piece)| write(at, piece)))
            .map_err(IntoPyErr::into_py_err)
    }

    /// Everything as one piece.
    pub(crate) fn into_bytes(self, py: Python<'_>) -> PyResult<Vec<u8>> {
        if !self.has_buffers() {
            return Ok(self.bytes);
        }
        let mut whole = Vec::new();
        self.write(
            py,
            |len| {
                whole.resize(len, 0);
                Ok(whole.as_mut_ptr())
            },
            |start, at, _| start.wrapping_add(at),
        )?;
        Ok(whole)
    }

    /// Writes everything to one place in shared memory: `place` finds it, `at` tells where a range of it lies.
    pub(crate) fn write<P>(
        &self,
        py: Python<'_>,
        place: impl FnOnce(usize) -> PyResult<P>,
        at: impl Fn(&P, usize, usize) -> *mut u8,
    ) -> PyResult<P> {
        let layout = self.layout();
        let place = place(layout.len)?;
        let small = [layout.head.as_slice(), self.pickle()].concat();
        copy_from_buffer(py, &small, at(&place, 0, small.len()));
        for (buffer, start) in self.buffers.iter().zip(&layout.starts) {
            crate::buffers::copy(py, buffer, at(&place, *start, buffer.len_bytes()));
        }
        Ok(place)
    }
}

/// Reads a value that a whole message holds, behind `skip` bytes.
pub(crate) fn read<'py>(py: Python<'py>, message: &Message, skip: usize) -> PyResult<Bound<'py, PyAny>> {
    match message {
        Message::Shared(lease) => read_shared(py, lease, skip),
        private => {
            let bytes = private.private().ok_or_else(torn)?;
            if bytes.get(skip) == Some(&BUFFERS) {
                return read_beside(py, bytes, skip);
            }
            read_private(py, &bytes[skip..])
        }
    }
}

/// Reads a value that fills the bytes.
pub(crate) fn read_bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    if bytes.first() == Some(&BUFFERS) { read_beside(py, bytes, 0) } else { read_private(py, bytes) }
}

/// Reads a value from private memory.
pub(crate) fn read_private<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match bytes.first() {
        Some(&PICKLE) => python::loads(py)?.call1((PyBytes::new(py, &bytes[1..]),)),
        Some(&BUFFERS) | None => Err(torn()),
        Some(_) => Reader::new(bytes).value(py),
    }
}

/// Reads a value whose buffers stand behind its pickle, out of private memory: each becomes an object of its own.
fn read_beside<'py>(py: Python<'py>, bytes: &[u8], skip: usize) -> PyResult<Bound<'py, PyAny>> {
    let mut reader = Reader::new(&bytes[skip + 1..]);
    let count = reader.u32()? as usize;
    let pickle_len = usize::try_from(reader.u64()?).map_err(|_| torn())?;
    let buffers = PyList::empty(py);
    let start =
        count.checked_mul(8).and_then(|table| table.checked_add(skip + BESIDE_HEAD)).ok_or_else(torn)?;
    let mut at = start.checked_add(pickle_len).filter(|end| *end <= bytes.len()).ok_or_else(torn)?;
    // Alignment counts from the start of the message, wherever it lies.
    let pickle = &bytes[start..at];
    for _ in 0..count {
        let tagged = reader.u64()?;
        let len = usize::try_from(tagged & !(1 << 63)).map_err(|_| torn())?;
        at = at.next_multiple_of(ALIGN);
        let next = at.checked_add(len).filter(|next| *next <= bytes.len()).ok_or_else(torn)?;
        let buffer = &bytes[at..next];
        if tagged >> 63 == 1 {
            buffers.append(PyMemoryView::from(&PyBytes::new(py, buffer))?)?;
        } else {
            buffers.append(PyMemoryView::from(&PyByteArray::new(py, buffer))?)?;
        }
        at = next;
    }
    let kwargs = pyo3::types::PyDict::new(py);
    kwargs.set_item("buffers", buffers)?;
    python::loads(py)?.call((PyBytes::new(py, pickle),), Some(&kwargs))
}

/// Reads a value from shared memory. Buffers beside the pickle are used in place.
pub(crate) fn read_shared<'py>(
    py: Python<'py>,
    lease: &Arc<Lease>,
    skip: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let mut head = Vec::new();
    lease.read_to(skip, BESIDE_HEAD.min(lease.len().saturating_sub(skip)), &mut head);
    if head.first() != Some(&BUFFERS) {
        let mut bytes = Vec::new();
        lease.read_to(skip, lease.len() - skip, &mut bytes);
        return read_private(py, &bytes);
    }
    let mut reader = Reader::new(&head[1..]);
    let count = reader.u32()? as usize;
    let pickle_len = usize::try_from(reader.u64()?).map_err(|_| torn())?;
    let table = count.checked_mul(8).filter(|len| *len <= lease.len()).ok_or_else(torn)?;
    let start = skip + BESIDE_HEAD + table;
    let end = start.checked_add(pickle_len).filter(|end| *end <= lease.len()).ok_or_else(torn)?;
    let mut bytes = Vec::new();
    lease.read_to(skip + BESIDE_HEAD, end - skip - BESIDE_HEAD, &mut bytes);
    let mut lengths = Reader::new(&bytes[..table]);
    let views = PyList::empty(py);
    let mut at = end;
    for _ in 0..count {
        let tagged = lengths.u64()?;
        let len = usize::try_from(tagged & !(1 << 63)).map_err(|_| torn())?;
        at = at.next_multiple_of(ALIGN);
        let next = at.checked_add(len).filter(|next| *next <= lease.len()).ok_or_else(torn)?;
        views.append(SharedView::over(py, Loaned::Lease(Arc::clone(lease)), at, len, tagged >> 63 == 1)?)?;
        at = next;
    }
    let kwargs = pyo3::types::PyDict::new(py);
    kwargs.set_item("buffers", views)?;
    python::loads(py)?.call((PyBytes::new(py, &bytes[table..]),), Some(&kwargs))
}

/// Something that only a broken peer or a bug can cause.
pub(crate) fn broken(what: &'static str) -> PyErr {
    PyRuntimeError::new_err(what)
}
