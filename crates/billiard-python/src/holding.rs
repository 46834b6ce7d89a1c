//! The descriptor of a connection: what it can be used for, who uses it, and when it is closed.

use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use billiard::conn::ConnError;
use billiard::sys::descriptor::{close_raw, trust};
use billiard::sys::stream::Kind;
use billiard::sys::{Identity, me};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use crate::errors::IntoPyErr;
use crate::traffic::{Partial, Track};

/// What somebody wants to do with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    In,
    Out,
    Either,
}

/// A descriptor, or none any more.
#[derive(Debug)]
pub(crate) struct Holding(Mutex<Slot>);

#[derive(Debug)]
struct Slot {
    number: RawFd,
    kind: Kind,
    readable: bool,
    writable: bool,
    /// The peer has got a part of a message and not the rest.
    broken: bool,
    partial: Partial,
    users: Users,
}

/// Who is using the descriptor. Closing it under a thread that waits for it would let that thread read from whatever gets
/// its number next.
#[derive(Debug)]
struct Users {
    count: u32,
    /// FORK: the threads of another process do not come back to be counted.
    of: Identity,
    /// To be closed by the last of them.
    closing: Option<RawFd>,
}

/// The descriptor, for as long as it is used.
pub(crate) struct Use<'a> {
    holding: &'a Holding,
    by: Identity,
    pub(crate) track: Track<'a>,
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        let mut slot = self.holding.lock();
        let users = &mut slot.users;
        if users.of == self.by && users.count > 0 {
            users.count -= 1;
            if users.count == 0
                && let Some(number) = users.closing.take()
            {
                close_raw(number);
            }
        }
    }
}

pub(crate) fn closed() -> PyErr {
    PyOSError::new_err("handle is closed")
}

impl Holding {
    /// No descriptor yet.
    pub(crate) fn none() -> Self {
        let users = Users { count: 0, of: me(), closing: None };
        let (kind, partial) = (Kind::Other, Partial::default());
        let (readable, writable, broken) = (false, false, false);
        Self(Mutex::new(Slot { number: -1, kind, readable, writable, broken, partial, users }))
    }

    /// FORK: held only while attached, and never while anything is called that might let go of the interpreter. So no thread
    /// that is not copied can hold it.
    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes what is held, and holds another descriptor.
    pub(crate) fn open(&self, number: RawFd, readable: bool, writable: bool) {
        self.close();
        // What is not open fails when it is used.
        let kind = trust(number).and_then(Kind::of).unwrap_or(Kind::Other);
        let mut slot = self.lock();
        (slot.number, slot.kind, slot.readable, slot.writable) = (number, kind, readable, writable);
        (slot.broken, slot.partial) = (false, Partial::default());
    }

    pub(crate) fn number(&self) -> Option<RawFd> {
        let number = self.lock().number;
        (number >= 0).then_some(number)
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.lock().readable
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.lock().writable
    }

    /// Begins to use the descriptor.
    pub(crate) fn enter(&self, direction: Direction) -> PyResult<Use<'_>> {
        let mut slot = self.lock();
        if slot.number < 0 {
            return Err(closed());
        }
        if direction == Direction::In && !slot.readable {
            return Err(PyOSError::new_err("connection is write-only"));
        }
        if direction == Direction::Out && !slot.writable {
            return Err(PyOSError::new_err("connection is read-only"));
        }
        if direction == Direction::Out && slot.broken {
            return Err(ConnError::Broken.into_py_err());
        }
        let by = me();
        if slot.users.of != by {
            slot.users = Users { count: 0, of: by, closing: None };
        }
        let fd = trust(slot.number).map_err(IntoPyErr::into_py_err)?;
        slot.users.count += 1;
        Ok(Use { holding: self, by, track: Track { fd, kind: slot.kind } })
    }

    /// A message was sent in part.
    pub(crate) fn tear(&self) {
        self.lock().broken = true;
    }

    /// Lets `receive` go on with a message that has arrived in part, and keeps what it leaves.
    pub(crate) fn receiving<T>(&self, receive: impl FnOnce(&mut Partial) -> PyResult<T>) -> PyResult<T> {
        let mut partial = std::mem::take(&mut self.lock().partial);
        let received = receive(&mut partial);
        if !partial.head.is_untouched() {
            self.lock().partial = partial;
        }
        received
    }

    /// What follows is not understood any more.
    pub(crate) fn give_up_reading(&self) {
        let writable = {
            let mut slot = self.lock();
            if slot.writable {
                slot.readable = false;
            }
            slot.writable
        };
        if !writable {
            self.close();
        }
    }

    /// Closes the descriptor, or has the last one do it who is using it.
    pub(crate) fn close(&self) {
        let mut slot = self.lock();
        let number = std::mem::replace(&mut slot.number, -1);
        if number < 0 {
            return;
        }
        if slot.users.count > 0 && slot.users.of == me() {
            slot.users.closing = Some(number);
        } else {
            close_raw(number);
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        // Nobody can be using it any more.
        let slot = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if slot.number >= 0 {
            close_raw(slot.number);
        }
    }
}
