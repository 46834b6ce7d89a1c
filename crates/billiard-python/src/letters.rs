//! Large objects on their way through a queue: copied once into it, from where they are, and once out of it, to where they
//! are wanted.

use std::sync::Arc;

use billiard::queue::{AsLetter, Draft, Drafting, Letter, MOST_DRAFTS, Parcel, Queue};
use billiard::sys::Deadline;
use billiard::sys::stream::{Piece, Room};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyMemoryView};

use crate::buffers::{Blank, Loaned, SharedView, array_room, blank_array};
use crate::codec::{self, ALIGN, BESIDE_HEAD, BUFFERS, Encoder, PICKLE, Pickled, Reader, torn};
use crate::errors::IntoPyErr;
use crate::python;
use crate::wait::{Blocking, Wait};

/// From this size on, an object is written to the queue while nobody waits for it.
pub(crate) const LARGE: usize = 64 * 1024;
/// The rest of the message is a bytes object.
const RAW: u8 = b'Y';

/// How the objects of one queue are pickled.
#[derive(Debug)]
pub(crate) struct Pickling {
    encoder: Encoder,
    /// Whether what is simple may go without a pickle.
    short: bool,
}

/// An object as it will be sent.
pub(crate) enum Encoded<'py> {
    Bytes(Vec<u8>),
    Raw(Bound<'py, PyBytes>),
    Pickled(Pickled),
}

/// A message that is ready to be put.
pub(crate) enum Message {
    Bytes(Vec<u8>),
    Draft(Draft),
}

impl AsLetter for Message {
    fn as_letter(&self) -> Letter<'_> {
        match self {
            Self::Bytes(bytes) => Letter::Bytes(bytes),
            Self::Draft(draft) => Letter::Draft(draft),
        }
    }
}

impl Pickling {
    /// With picklers of this class. `short`: what is simple may go without a pickle.
    pub(crate) fn new(class: Bound<'_, PyAny>, short: bool) -> PyResult<Self> {
        Ok(Self { encoder: Encoder::new(class)?, short })
    }

    /// Appends what is simple to `bytes`. False: it is not.
    pub(crate) fn put_short(&self, object: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> bool {
        self.short && codec::put_short(object, bytes)
    }

    /// What has no short form.
    pub(crate) fn encode<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<Encoded<'py>> {
        if self.short
            && let Ok(bytes) = object.cast_exact::<PyBytes>()
            && bytes.as_bytes().len() >= LARGE
        {
            return Ok(Encoded::Raw(bytes.clone()));
        }
        match self.encoder.pickle(object, &[]) {
            Ok(pickled) if pickled.len() >= LARGE => Ok(Encoded::Pickled(pickled)),
            Ok(pickled) => pickled.into_bytes(object.py()).map(Encoded::Bytes),
            Err(error)
                if !self.encoder.sends_by_name() && error.is_instance_of::<PyException>(object.py()) =>
            {
                Err(reason(object.py(), error)?)
            }
            Err(error) => Err(error),
        }
    }
}

/// What the program's own serializer has raised.
fn reason(py: Python<'_>, error: PyErr) -> PyResult<PyErr> {
    let told = py.import("billiard._serializers")?.call_method1("refused_by", (error.into_value(py),))?;
    Ok(PyErr::from_value(told.get_item(0)?))
}

impl Encoded<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Raw(bytes) => bytes.as_bytes().len() + 1,
            Self::Pickled(pickled) => pickled.len(),
        }
    }

    /// As one piece.
    pub(crate) fn into_bytes(self, py: Python<'_>) -> PyResult<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Raw(bytes) => Ok([&[RAW], bytes.as_bytes()].concat()),
            Self::Pickled(pickled) => pickled.into_bytes(py),
        }
    }

    /// Written to the queue's memory if it is large. `None`: the queue was full until the deadline.
    pub(crate) fn into_message(
        self,
        py: Python<'_>,
        queue: &Queue,
        deadline: Deadline,
    ) -> PyResult<Option<Message>> {
        let this = match self {
            Self::Bytes(bytes) => return Ok(Some(Message::Bytes(bytes))),
            large => large,
        };
        let len = this.len();
        let drafting = py.wait_on_word(|| {
            queue.draft(len, deadline).map(|drafting| match drafting {
                Drafting::Draft(draft) => Wait::Ready(Some(draft)),
                Drafting::Full => Wait::TimedOut,
                Drafting::Interrupted => Wait::Interrupted,
                Drafting::Refused => Wait::Ready(None),
            })
        })?;
        match drafting {
            None => Ok(None),
            Some(None) => this.into_bytes(py).map(|bytes| Some(Message::Bytes(bytes))),
            Some(Some(draft)) => {
                this.write_to(py, &draft)?;
                Ok(Some(Message::Draft(draft)))
            }
        }
    }

    fn write_to(&self, py: Python<'_>, draft: &Draft) -> PyResult<()> {
        match self {
            Self::Bytes(bytes) => draft.write(0, Piece::of(bytes)).map_err(IntoPyErr::into_py_err),
            Self::Raw(bytes) => {
                let bytes = bytes.as_bytes();
                let write =
                    || draft.write(0, Piece::of(&[RAW])).and_then(|()| draft.write(1, Piece::of(bytes)));
                py.detach(write).map_err(IntoPyErr::into_py_err)
            }
            Self::Pickled(pickled) => pickled.write_parts(py, |at, piece| draft.write(at, piece)),
        }
    }
}

/// The next of several objects, as many as the queue holds at most, ready to be put together. True: it was full until the
/// deadline, so there are fewer, and the next one is gone.
pub(crate) fn ready<'py>(
    py: Python<'py>,
    encoded: &mut impl Iterator<Item = Encoded<'py>>,
    queue: &Queue,
    deadline: Deadline,
) -> PyResult<(Vec<Message>, bool)> {
    let (mut messages, mut drafts) = (Vec::new(), 0);
    for one in encoded.take(queue.most().max(1)) {
        // Beyond that, and no others may come between: in one piece, which is one copy more.
        let one = if drafts == MOST_DRAFTS { Encoded::Bytes(one.into_bytes(py)?) } else { one };
        let Some(message) = one.into_message(py, queue, deadline)? else { return Ok((messages, true)) };
        drafts += usize::from(matches!(message, Message::Draft(_)));
        messages.push(message);
    }
    Ok((messages, false))
}

fn fill(py: Python<'_>, parcel: &Parcel, at: usize, mut room: Room<'_>) -> PyResult<()> {
    py.detach(|| parcel.read(at, &mut room)).map_err(IntoPyErr::into_py_err)
}

fn bytes_of<'py>(py: Python<'py>, parcel: &Parcel, at: usize, len: usize) -> PyResult<Bound<'py, PyBytes>> {
    let mut blank = Blank::new(py, len)?;
    fill(py, parcel, at, blank.room(py, 0))?;
    Ok(blank.finish(py))
}

fn array_of<'py>(
    py: Python<'py>,
    parcel: &Parcel,
    at: usize,
    len: usize,
) -> PyResult<Bound<'py, PyByteArray>> {
    let array = blank_array(py, len)?;
    fill(py, parcel, at, array_room(&array))?;
    Ok(array)
}

/// Reads an object that was got as bytes.
pub(crate) fn read_bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match bytes {
        [RAW, raw @ ..] => Ok(PyBytes::new(py, raw).into_any()),
        _ => codec::read_bytes(py, bytes),
    }
}

/// Reads an object out of the queue's memory.
pub(crate) fn read_parcel<'py>(py: Python<'py>, parcel: &Arc<Parcel>) -> PyResult<Bound<'py, PyAny>> {
    let mut head = [0; BESIDE_HEAD];
    let known = head.len().min(parcel.len());
    parcel.read(0, &mut Room::of(&mut head[..known])).map_err(IntoPyErr::into_py_err)?;
    match head[0] {
        RAW => bytes_of(py, parcel, 1, parcel.len() - 1).map(Bound::into_any),
        PICKLE => python::loads(py)?.call1((bytes_of(py, parcel, 1, parcel.len() - 1)?,)),
        BUFFERS => read_beside(py, parcel, &head),
        _ => {
            let mut bytes = Vec::new();
            parcel.read_to(&mut bytes).map_err(IntoPyErr::into_py_err)?;
            codec::read_private(py, &bytes)
        }
    }
}

/// Reads an object whose buffers stand behind its pickle. They are used where they lie, unless the program has so much of the queue's memory
/// that they are copied out of it.
fn read_beside<'py>(py: Python<'py>, parcel: &Arc<Parcel>, head: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let mut reader = Reader::new(&head[1..]);
    let count = reader.u32()? as usize;
    let inside = |end: Option<usize>| end.filter(|end| *end <= parcel.len()).ok_or_else(torn);
    let pickle_len = usize::try_from(reader.u64()?).map_err(|_| torn())?;
    let start = inside(count.checked_mul(8).and_then(|table| table.checked_add(BESIDE_HEAD)))?;
    let mut at = inside(start.checked_add(pickle_len))?;
    let table = bytes_of(py, parcel, BESIDE_HEAD, start - BESIDE_HEAD)?;
    let mut lengths = Reader::new(table.as_bytes());
    let mut places = Vec::new();
    for _ in 0..count {
        let tagged = lengths.u64()?;
        let len = usize::try_from(tagged & !(1 << 63)).map_err(|_| torn())?;
        at = at.next_multiple_of(ALIGN);
        let next = inside(at.checked_add(len))?;
        places.push((at, len, tagged >> 63 == 1));
        at = next;
    }
    let written = places.iter().any(|(.., readonly)| !readonly);
    let window = py.detach(|| {
        parcel.window().inspect(|window| {
            if written {
                window.prepare()
            }
        })
    });
    let window = window.map(Arc::new);
    let buffers = PyList::empty(py);
    for (at, len, readonly) in places {
        buffers.append(match &window {
            Some(window) => SharedView::over(py, Loaned::Window(Arc::clone(window)), at, len, readonly)?,
            None if readonly => PyMemoryView::from(bytes_of(py, parcel, at, len)?.as_any())?,
            None => PyMemoryView::from(array_of(py, parcel, at, len)?.as_any())?,
        })?;
    }
    let kwargs = PyDict::new(py);
    kwargs.set_item("buffers", buffers)?;
    python::loads(py)?.call((bytes_of(py, parcel, start, pickle_len)?,), Some(&kwargs))
}
