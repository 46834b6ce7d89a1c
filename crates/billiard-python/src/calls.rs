//! Tasks on their way: what a worker is to call, as the bytes of a message.
//!
//! The first byte says which form follows.

use std::cell::RefCell;

use billiard::pool::Message;
use billiard::pool::engine::{Body, Engine, Room};
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::codec::{Encoder, Pickled, put_short};
use crate::functions::Functions;

/// Positional arguments in short form; the function by number.
pub(crate) const SHORT: u8 = b'A';
/// `(args, kwargs)`; the function by number.
pub(crate) const CALL: u8 = b'C';
/// `(function, args, kwargs)`.
pub(crate) const WHOLE: u8 = b'W';
/// Count, then items in short form; the function by number, called once for each.
pub(crate) const EACH: u8 = b'M';
/// A list of items; the function by number.
pub(crate) const EACH_LISTED: u8 = b'm';
/// `(function, items)`.
pub(crate) const EACH_WHOLE: u8 = b'w';
/// Or-ed to one of the three before: an item holds the positional arguments.
pub(crate) const STAR: u8 = 0x80;

/// Turns calls into messages.
#[derive(Debug)]
pub(crate) struct Packer<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) encoder: &'a Encoder,
    pub(crate) functions: &'a Functions,
    pub(crate) tell: bool,
}

impl Packer<'_> {
    /// One call of a function.
    pub(crate) fn call(
        &self,
        function: &Bound<'_, PyAny>,
        args: &Bound<'_, PyAny>,
        kwargs: &Bound<'_, PyAny>,
        scratch: &mut Vec<u8>,
    ) -> PyResult<Body> {
        let py = function.py();
        let number = self.functions.number(self.engine, self.encoder, function)?;
        scratch.clear();
        scratch.push(SHORT);
        let plain = number > 0
            && args.is_exact_instance_of::<PyTuple>()
            && kwargs.cast_exact::<PyDict>().is_ok_and(|d| d.is_empty());
        if plain && put_short(args, scratch) {
            return Ok(self.body(number, self.engine.pack(scratch)));
        }
        let pickled = if number > 0 {
            self.encoder.pickle(PyTuple::new(py, [args, kwargs])?.as_any(), &[CALL])?
        } else {
            self.encoder.pickle(PyTuple::new(py, [function, args, kwargs])?.as_any(), &[WHOLE])?
        };
        Ok(self.body(number, self.message(py, &pickled)?))
    }

    /// One call for each of several items.
    pub(crate) fn each(
        &self,
        function: &Bound<'_, PyAny>,
        items: &Bound<'_, PyTuple>,
        star: bool,
        scratch: &mut Vec<u8>,
    ) -> PyResult<Body> {
        let py = function.py();
        let number = self.functions.number(self.engine, self.encoder, function)?;
        let mark = if star { STAR } else { 0 };
        if number > 0 {
            scratch.clear();
            scratch.push(EACH | mark);
            scratch.extend((items.len() as u32).to_le_bytes());
            if items.iter_borrowed().all(|item| put_short(&item, scratch)) {
                return Ok(self.body(number, self.engine.pack(scratch)));
            }
            let pickled = self.encoder.pickle(items.as_any(), &[EACH_LISTED | mark])?;
            return Ok(self.body(number, self.message(py, &pickled)?));
        }
        let whole = PyTuple::new(py, [function, items.as_any()])?;
        let pickled = self.encoder.pickle(whole.as_any(), &[EACH_WHOLE | mark])?;
        Ok(self.body(number, self.message(py, &pickled)?))
    }

    const fn body(&self, function: u32, message: Message) -> Body {
        Body { function, tell: self.tell, message }
    }

    fn message(&self, py: Python<'_>, pickled: &Pickled) -> PyResult<Message> {
        if !pickled.has_buffers() {
            return Ok(self.engine.pack(&pickled.bytes));
        }
        let target = pickled.write(
            py,
            |len| {
                // What finds no room in shared memory now waits on the heap; the engine finds it room in its turn.
                let room = self.engine.room(len).map(Target::Shared);
                Ok(room.unwrap_or_else(|| Target::Private(RefCell::new(vec![0; len]))))
            },
            |target, at, len| match target {
                Target::Shared(room) => self.engine.pointer(room, at, len),
                Target::Private(bytes) => bytes.borrow_mut()[at..at + len].as_mut_ptr(),
            },
        )?;
        match target {
            Target::Private(bytes) => Ok(Message::Heap(bytes.into_inner().into())),
            Target::Shared(room) => {
                let no_room =
                    || PyMemoryError::new_err("no shared memory is left for the arguments of a task");
                self.engine.filled(room).ok_or_else(no_room)
            }
        }
    }
}

/// Where the bytes of a call are put together.
enum Target {
    Shared(Room),
    Private(RefCell<Vec<u8>>),
}
