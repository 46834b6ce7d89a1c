//! Pickles as they go through connections: one stream of bytes, in which large bytes objects stand as themselves and are not
//! copied.

use std::sync::{Mutex, MutexGuard, PoisonError};

use billiard::sys::stream::Piece;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::python;

/// From this size on a bytes object is sent from where it is.
const WORTH_KEEPING: usize = 32 * 1024;
/// No more memory than this is kept for the next pickle.
const SPARE_MOST: usize = 64 * 1024;

#[derive(Debug, Default)]
struct Written {
    small: Vec<u8>,
    /// What stands before which byte of `small`.
    large: Vec<(usize, Py<PyBytes>)>,
}

/// Where a pickler writes to.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug, Default)]
struct Sheets(Mutex<Written>);

impl Sheets {
    fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Sheets {
    /// Takes a piece of a pickle.
    fn write(&self, piece: &Bound<'_, PyAny>) -> PyResult<usize> {
        // The pickler writes large bytearrays and the like as they are.
        let piece = match piece.cast::<PyBytes>() {
            Ok(piece) => piece.clone(),
            Err(_) => piece.py().get_type::<PyBytes>().call1((piece,))?.cast_into()?,
        };
        let len = piece.as_bytes().len();
        let mut written = self.lock();
        if len >= WORTH_KEEPING {
            let at = written.small.len();
            written.large.push((at, piece.unbind()));
        } else {
            written.small.extend_from_slice(piece.as_bytes());
        }
        Ok(len)
    }
}

struct Pickler {
    pickler: Py<PyAny>,
    sheets: Py<Sheets>,
}

impl Pickler {
    fn new(py: Python<'_>) -> PyResult<Self> {
        let sheets = Py::new(py, Sheets::default())?;
        let pickler = python::forking_pickler(py)?.call1((sheets.clone_ref(py),))?.unbind();
        Ok(Self { pickler, sheets })
    }
}

/// Picklers that nobody uses at the moment. The lock is never held while anything else is called.
static SPARE: Mutex<Vec<Pickler>> = Mutex::new(Vec::new());

fn spare() -> MutexGuard<'static, Vec<Pickler>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One pickle.
pub(crate) struct Pickle {
    written: Written,
    pickler: Option<Pickler>,
}

impl Pickle {
    /// Pickles an object the way the package does, with the interpreter's default protocol.
    pub(crate) fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        // Reducers are arbitrary code and may send something themselves: nobody else may use this pickler meanwhile.
        let unused = spare().pop();
        let pickler = unused.map_or_else(|| Pickler::new(py), Ok)?;
        let dumped = pickler.pickler.call_method1(py, pyo3::intern!(py, "dump"), (object,));
        let written = std::mem::take(&mut *pickler.sheets.get().lock());
        dumped?;
        pickler.pickler.call_method0(py, pyo3::intern!(py, "clear_memo"))?;
        Ok(Self { written, pickler: Some(pickler) })
    }

    /// Where its bytes are, in their order.
    pub(crate) fn pieces(&self, py: Python<'_>) -> Vec<Piece<'_>> {
        let mut pieces = Vec::with_capacity(2 * self.written.large.len() + 2);
        let mut from = 0;
        for (at, large) in &self.written.large {
            pieces.push(Piece::of(&self.written.small[from..*at]));
            pieces.push(Piece::of(large.as_bytes(py)));
            from = *at;
        }
        pieces.push(Piece::of(&self.written.small[from..]));
        pieces
    }
}

impl Drop for Pickle {
    fn drop(&mut self) {
        if let Some(pickler) = self.pickler.take() {
            let mut small = std::mem::take(&mut self.written.small);
            if small.capacity() <= SPARE_MOST {
                small.clear();
                pickler.sheets.get().lock().small = small;
            }
            spare().push(pickler);
        }
    }
}
