//! Pickles of what is made of scalars and tuples only, written and read without a pickler: most of what is said to a manager
//! is such. Whatever else there is goes the usual way, and so the two ends need not agree on which way that was.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyString, PyTuple};

/// From this size on the usual way is as fast.
const LONGEST: usize = 16 * 1024;
/// No more than so many tuples inside each other.
const DEEPEST: usize = 8;

const PROTO: [u8; 2] = [0x80, 4];
const STOP: u8 = b'.';
const MARK: u8 = b'(';
const NONE: u8 = b'N';
const TRUE: u8 = 0x88;
const FALSE: u8 = 0x89;
const BININT: u8 = b'J';
const BININT1: u8 = b'K';
const BININT2: u8 = b'M';
const LONG1: u8 = 0x8a;
const BINFLOAT: u8 = b'G';
const SHORT_BINUNICODE: u8 = 0x8c;
const BINUNICODE: u8 = b'X';
const SHORT_BINBYTES: u8 = b'C';
const BINBYTES: u8 = b'B';
const EMPTY_TUPLE: u8 = b')';
const TUPLE: u8 = b't';
const TUPLE1: u8 = 0x85;
const TUPLE2: u8 = 0x86;
const TUPLE3: u8 = 0x87;
const EMPTY_DICT: u8 = b'}';
const MEMOIZE: u8 = 0x94;
const FRAME: u8 = 0x95;
const BINGET: u8 = b'h';

/// Writes the pickle of a tuple. False: it has something else in it, and what was written is to be dropped.
///
/// What could be changed, and so has an identity that a pickle keeps, is nothing for it; but a dictionary without arguments
/// stands in every request, and is nobody else's.
pub(crate) fn write(message: &Bound<'_, PyTuple>, to: &mut Vec<u8>) -> bool {
    to.extend_from_slice(&PROTO);
    let from = to.len();
    let mut dictionaries = 0;
    let written = write_tuple(message, to, |item, to| {
        if item.cast_exact::<PyDict>().is_ok_and(|dict| dict.is_empty()) {
            to.push(EMPTY_DICT);
            dictionaries += 1;
            return dictionaries == 1;
        }
        write_item(item, to, DEEPEST)
    });
    to.push(STOP);
    written && to.len() - from <= LONGEST
}

fn write_tuple<'py>(
    items: &Bound<'py, PyTuple>,
    to: &mut Vec<u8>,
    mut write: impl FnMut(&Bound<'py, PyAny>, &mut Vec<u8>) -> bool,
) -> bool {
    if items.len() > 3 {
        to.push(MARK);
    }
    for item in items.iter_borrowed() {
        if !write(&item, to) || to.len() > 2 * LONGEST {
            return false;
        }
    }
    to.push(match items.len() {
        0 => EMPTY_TUPLE,
        1 => TUPLE1,
        2 => TUPLE2,
        3 => TUPLE3,
        _ => TUPLE,
    });
    true
}

fn write_item(item: &Bound<'_, PyAny>, to: &mut Vec<u8>, depth: usize) -> bool {
    if let Ok(text) = item.cast_exact::<PyString>() {
        // What has no UTF-8 needs a pickler.
        let Ok(text) = text.to_str() else { return false };
        write_counted(text.as_bytes(), to, SHORT_BINUNICODE, BINUNICODE)
    } else if let Ok(number) = item.cast_exact::<PyInt>() {
        let Ok(number) = number.extract::<i64>() else { return false };
        if let Ok(small) = u8::try_from(number) {
            to.extend_from_slice(&[BININT1, small]);
        } else if let Ok(small) = u16::try_from(number) {
            to.push(BININT2);
            to.extend_from_slice(&small.to_le_bytes());
        } else if let Ok(small) = i32::try_from(number) {
            to.push(BININT);
            to.extend_from_slice(&small.to_le_bytes());
        } else {
            to.extend_from_slice(&[LONG1, 8]);
            to.extend_from_slice(&number.to_le_bytes());
        }
        true
    } else if item.is_none() {
        to.push(NONE);
        true
    } else if let Ok(value) = item.cast_exact::<PyBool>() {
        to.push(if value.is_true() { TRUE } else { FALSE });
        true
    } else if let Ok(number) = item.cast_exact::<PyFloat>() {
        to.push(BINFLOAT);
        to.extend_from_slice(&number.value().to_be_bytes());
        true
    } else if let Ok(bytes) = item.cast_exact::<PyBytes>() {
        write_counted(bytes.as_bytes(), to, SHORT_BINBYTES, BINBYTES)
    } else if let Ok(tuple) = item.cast_exact::<PyTuple>() {
        depth > 0 && write_tuple(tuple, to, |item, to| write_item(item, to, depth - 1))
    } else {
        false
    }
}

fn write_counted(bytes: &[u8], to: &mut Vec<u8>, short: u8, long: u8) -> bool {
    if bytes.len() > LONGEST {
        return false;
    }
    match u8::try_from(bytes.len()) {
        Ok(len) => to.extend_from_slice(&[short, len]),
        Err(_) => {
            to.push(long);
            // No more than `LONGEST`.
            to.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        }
    }
    to.extend_from_slice(bytes);
    true
}

/// Reads a pickle. None: it has something else in it, or is none; then the unpickler shall say so.
pub(crate) fn read<'py>(py: Python<'py>, bytes: &[u8]) -> Option<Bound<'py, PyAny>> {
    if bytes.len() > LONGEST {
        return None;
    }
    let mut reader =
        Reader { py, rest: bytes, stack: Vec::with_capacity(8), marks: Vec::new(), memo: Vec::new() };
    while reader.step()? {}
    let top = reader.stack.pop()?;
    (reader.stack.is_empty() && reader.marks.is_empty() && reader.rest.is_empty()).then_some(top)
}

struct Reader<'a, 'py> {
    py: Python<'py>,
    rest: &'a [u8],
    stack: Vec<Bound<'py, PyAny>>,
    marks: Vec<usize>,
    memo: Vec<Bound<'py, PyAny>>,
}

impl<'a, 'py> Reader<'a, 'py> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn counted(&mut self, short: bool) -> Option<&'a [u8]> {
        let len = if short { u32::from(self.take(1)?[0]) } else { u32::from_le_bytes(self.array()?) };
        self.take(usize::try_from(len).ok()?)
    }

    fn push(&mut self, item: Bound<'py, PyAny>) {
        self.stack.push(item);
    }

    /// Makes a tuple of what is on the stack from there on.
    fn tuple(&mut self, from: usize) -> Option<()> {
        let tuple = PyTuple::new(self.py, self.stack.get(from..)?).ok()?;
        self.stack.truncate(from);
        self.push(tuple.into_any());
        Some(())
    }

    /// One opcode; false at the end.
    fn step(&mut self) -> Option<bool> {
        let py = self.py;
        match self.take(1)?[0] {
            0x80 => (self.take(1)?[0] <= 5).then_some(())?,
            FRAME => self.take(8).map(drop)?,
            MARK => self.marks.push(self.stack.len()),
            MEMOIZE => self.memo.push(self.stack.last()?.clone()),
            BINGET => {
                let at = self.take(1)?[0];
                self.push(self.memo.get(usize::from(at))?.clone());
            }
            opcode @ (SHORT_BINUNICODE | BINUNICODE) => {
                let text = std::str::from_utf8(self.counted(opcode == SHORT_BINUNICODE)?).ok()?;
                self.push(PyString::new(py, text).into_any());
            }
            opcode @ (SHORT_BINBYTES | BINBYTES) => {
                let bytes = self.counted(opcode == SHORT_BINBYTES)?;
                self.push(PyBytes::new(py, bytes).into_any());
            }
            BININT1 => {
                let number = self.take(1)?[0];
                self.number(number.into())?;
            }
            BININT2 => {
                let number = u16::from_le_bytes(self.array()?);
                self.number(number.into())?;
            }
            BININT => {
                let number = i32::from_le_bytes(self.array()?);
                self.number(number.into())?;
            }
            LONG1 => {
                if self.take(1)?[0] != 8 {
                    return None;
                }
                let number = i64::from_le_bytes(self.array()?);
                self.number(number)?;
            }
            BINFLOAT => {
                let number = f64::from_be_bytes(self.array()?);
                self.push(PyFloat::new(py, number).into_any());
            }
            NONE => self.push(py.None().into_bound(py)),
            TRUE => self.push(PyBool::new(py, true).to_owned().into_any()),
            FALSE => self.push(PyBool::new(py, false).to_owned().into_any()),
            EMPTY_DICT => self.push(PyDict::new(py).into_any()),
            EMPTY_TUPLE => self.tuple(self.stack.len())?,
            opcode @ (TUPLE1 | TUPLE2 | TUPLE3) => {
                let from = self.stack.len().checked_sub(usize::from(opcode - TUPLE1) + 1)?;
                (self.marks.last().is_none_or(|mark| *mark <= from)).then_some(())?;
                self.tuple(from)?;
            }
            TUPLE => {
                let from = self.marks.pop()?;
                self.tuple(from)?;
            }
            STOP => return Some(false),
            _ => return None,
        }
        Some(true)
    }

    fn number(&mut self, number: i64) -> Option<()> {
        let number = number.into_pyobject(self.py).ok()?;
        self.push(number.into_any());
        Some(())
    }
}
