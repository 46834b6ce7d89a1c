//! Objects that go through a connection with their large buffers beside them, where both ends have agreed on that.
//!
//! The message is the head of a pickle with buffers (see `codec.rs`) and the pickle; the buffers lie in memory of their own, whose
//! descriptor travels with the message. Without one, the message is a pickle like any other.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use billiard::conn::ConnError;
use billiard::conn::cargo::{Cargo, Stock, unload};
use billiard::conn::frame::Head;
use billiard::sys::poll::{Awaited, Woken, poll_one, readable};
use billiard::sys::stream::is_blocking;
use billiard::sys::{Deadline, carrying};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::buffers::{Loaned, SharedView};
use crate::codec::{ALIGN, BESIDE_HEAD, Pickled, Reader, torn};
use crate::errors::IntoPyErr;
use crate::python;
use crate::traffic::{Partial, Track};
use crate::wait::{Blocking, Wait};

/// A sender whose peer is behind looks again after so long, and after twice as long each time: nothing tells of a message that was read.
const FIRST_NAP: Duration = Duration::from_micros(200);
const LONGEST_NAP: Duration = Duration::from_millis(20);

/// A message and what travels beside it.
pub(crate) struct Loaded<'a> {
    pub(crate) message: Vec<u8>,
    /// There until it is sent, or given up.
    cargo: Option<Cargo>,
    stock: &'a Stock,
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        if let Some(cargo) = self.cargo.take() {
            cargo.recall();
            self.stock.keep(cargo);
        }
    }
}

/// Copies the buffers of an object to memory of their own.
pub(crate) fn load<'a>(py: Python<'_>, pickled: &Pickled, stock: &'a Stock) -> PyResult<Loaded<'a>> {
    let (mut message, starts, len) = pickled.beside();
    message.extend_from_slice(pickled.pickle());
    let pieces: Vec<_> = starts.into_iter().zip(pickled.pieces()).collect();
    let cargo = py.detach(|| {
        let cargo = stock.find(len)?;
        pieces.into_iter().for_each(|(at, piece)| cargo.load(at, piece));
        Ok(cargo)
    });
    let cargo = cargo.map_err(|error: ConnError| error.into_py_err())?;
    Ok(Loaded { message, cargo: Some(cargo), stock })
}

impl Loaded<'_> {
    /// Sends the first bytes of the head, with the cargo. How many.
    pub(crate) fn begin(&mut self, py: Python<'_>, track: Track<'_>, head: &Head) -> PyResult<usize> {
        let Some(cargo) = self.cargo.as_ref() else { return Ok(0) };
        let mut nap = FIRST_NAP;
        let sent = py.wait_for(|interrupts| {
            loop {
                match cargo.send(track.fd, head.as_bytes()) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    sent => return sent.map(|sent| Wait::Ready(Some(sent))),
                }
                if !is_blocking(track.fd)? {
                    return Ok(Wait::Ready(None));
                }
                if readable(&[], Deadline::Never.or_after(nap), interrupts)? == Woken::Interrupted {
                    return Ok(Wait::Interrupted);
                }
                nap = (nap * 2).min(LONGEST_NAP);
            }
        })?;
        let sent = sent.flatten().ok_or_else(|| ConnError::WouldBlock.into_py_err())?;
        if let Some(cargo) = self.cargo.take() {
            self.stock.keep(cargo);
        }
        Ok(sent)
    }
}

/// Takes the first bytes of a message, and what has come with them. What is left of the message is read as usual. `give_up` is called if
/// what came cannot be had: then the message is not understood, nor what follows it.
pub(crate) fn first(
    py: Python<'_>,
    track: Track<'_>,
    partial: &mut Partial,
    give_up: impl FnOnce(),
) -> PyResult<()> {
    let mut refused = false;
    let outcome = py.wait_for(|interrupts| {
        loop {
            let Some(place) = partial.head.missing() else { return Ok(Wait::Ready(true)) };
            match carrying::receive(track.fd, place) {
                Ok((got, beside)) => {
                    partial.head.arrived(got);
                    partial.carried = beside;
                    return Ok(Wait::Ready(true));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    refused = true;
                    return Err(error);
                }
            }
            if !is_blocking(track.fd)? {
                return Ok(Wait::Ready(false));
            }
            if poll_one(track.fd, Awaited::Data, Deadline::Never, interrupts)? == Woken::Interrupted {
                return Ok(Wait::Interrupted);
            }
        }
    });
    if refused {
        give_up();
    }
    if outcome? == Some(true) { Ok(()) } else { Err(ConnError::WouldBlock.into_py_err()) }
}

/// Reads an object out of a message and what came beside it.
pub(crate) fn read<'py>(
    py: Python<'py>,
    message: &Bound<'py, PyBytes>,
    carried: Option<OwnedFd>,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(fd) = carried else { return python::loads(py)?.call1((message,)) };
    let bytes = message.as_bytes();
    let mut reader = Reader::new(bytes.get(1..).ok_or_else(torn)?);
    let count = reader.u32()? as usize;
    let pickle_len = usize::try_from(reader.u64()?).map_err(|_| torn())?;
    let mut places = Vec::new();
    let mut len = 0_usize;
    for _ in 0..count {
        let tagged = reader.u64()?;
        let size = usize::try_from(tagged & !(1 << 63)).map_err(|_| torn())?;
        let at = len.checked_next_multiple_of(ALIGN).ok_or_else(torn)?;
        len = at.checked_add(size).ok_or_else(torn)?;
        places.push((at, size, tagged >> 63 == 1));
    }
    let start = count.checked_mul(8).and_then(|table| table.checked_add(BESIDE_HEAD)).ok_or_else(torn)?;
    let pickle = bytes.get(start..).filter(|pickle| pickle.len() == pickle_len).ok_or_else(torn)?;
    let written = places.iter().any(|(.., readonly)| !readonly);
    let window = py.detach(|| {
        unload(fd, len).inspect(|window| {
            if written {
                window.prepare()
            }
        })
    });
    let window = Arc::new(window.map_err(IntoPyErr::into_py_err)?);
    let buffers = PyList::empty(py);
    for (at, size, readonly) in places {
        buffers.append(SharedView::over(py, Loaned::Window(Arc::clone(&window)), at, size, readonly)?)?;
    }
    let kwargs = PyDict::new(py);
    kwargs.set_item("buffers", buffers)?;
    python::loads(py)?.call((PyBytes::new(py, pickle),), Some(&kwargs))
}
