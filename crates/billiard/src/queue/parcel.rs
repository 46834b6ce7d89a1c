//! Large messages: in rows of segments of their own, to and from which they are copied while nobody waits for it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::chain::note_death;
use super::error::{Doing, QueueError};
use super::layout::{DATA, SEGMENT};
use super::loans::{self, Row, Side};
use super::store::Store;
use super::warmth;
use crate::arena::Window;
use crate::failpoint;
use crate::sys::stream::{Piece, Room};
use crate::sys::{Identity, me, pages};

/// A process: its number and when it began, if that can be told.
pub(super) type Process = Option<(u64, u64)>;

/// A row that this process has on loan; dropping it gives the row back.
#[derive(Debug)]
pub(super) struct Loan {
    store: Arc<Store>,
    number: usize,
    pub(super) row: Row,
    owner: Identity,
    side: Side,
    process: Process,
    /// Somebody else's from now on: only the loan ends.
    passed_on: AtomicBool,
}

impl Loan {
    /// Under the lock of that side. `None`: there are too many, or the process cannot be told from others.
    pub(super) fn enter(store: &Arc<Store>, side: Side, process: Process, row: Row) -> Option<Self> {
        let number = loans::enter(&store.map, side, process?, row)?;
        let store = Arc::clone(store);
        Some(Self { store, number, row, owner: me(), side, process, passed_on: AtomicBool::new(false) })
    }

    /// Gives the row back, and its memory to the system.
    pub(super) fn end_cold(self) -> io::Result<()> {
        let back = self.store.give_back(self.row.first, self.row.first + self.row.count);
        if back.is_ok() {
            self.pass_on();
        }
        back
    }

    fn at(&self, offset: u64) -> u64 {
        self.row.first * SEGMENT + offset
    }

    /// The chain refers to the row, or still does.
    pub(super) fn pass_on(&self) {
        // Relaxed: only read by `drop`, which has the loan for itself.
        self.passed_on.store(true, Relaxed);
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // FORK: the child's copy is not the child's loan.
        if !self.owner.is_me() {
            return;
        }
        let mut back = Ok(());
        if !*self.passed_on.get_mut() {
            back = self.store.give_back_warm(self.row.first, self.row.first + self.row.count);
        }
        failpoint::pass("queue_given_back");
        loans::end(&self.store.map, self.number);
        let ours = self.side == Side::Get && !*self.passed_on.get_mut();
        // Who still refers to the row may have a lock; who does not, has none.
        if ours && back.is_ok() {
            back = warmth::settle(&self.store, self.process);
        }
        if back.is_err() {
            // The next sweep tries again.
            note_death(&self.store);
        }
    }
}

/// Room for a large message that is being written, and that nobody sees before it is put.
///
/// Dropped, it takes nothing from anybody. So it is with the process that it belongs to, when that is killed.
#[derive(Debug)]
pub struct Draft {
    pub(super) loan: Loan,
    len: usize,
}

impl Draft {
    pub(super) const fn new(loan: Loan, len: usize) -> Self {
        Self { loan, len }
    }

    /// How many bytes the message has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes a part of the message. What is not written holds what happened to be there.
    ///
    /// # Errors
    /// No memory is left.
    ///
    /// # Panics
    /// The part lies outside of the message.
    pub fn write(&self, at: usize, part: Piece<'_>) -> Result<(), QueueError> {
        assert!(at.checked_add(part.len()).is_some_and(|end| end <= self.len), "a part of the message");
        self.loan.store.write_piece(self.loan.at(at as u64), part).doing("write a message")
    }
}

/// A large message that was got, and is still where it was put. Dropped, its memory is given back.
#[derive(Debug)]
pub struct Parcel {
    loan: Loan,
    len: usize,
}

impl Parcel {
    pub(super) const fn new(loan: Loan, len: usize) -> Self {
        Self { loan, len }
    }

    /// How many bytes the message has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Fills all the room with bytes of the message from `at` on.
    ///
    /// # Panics
    /// The message ends before.
    pub fn read(&self, at: usize, room: &mut Room<'_>) -> Result<(), QueueError> {
        assert!(at.checked_add(room.left()).is_some_and(|end| end <= self.len), "a part of the message");
        pages::prepare(room);
        self.loan.store.fill(self.loan.at(at as u64), room).doing("read a message")
    }

    /// Maps the message where it lies, to be used in place: read and written, as what this process has for itself. It is given back
    /// with the last window on it, when the process forks, or when it ends, however that happens.
    ///
    /// `None`: enough is kept of the queue's memory already, or it cannot be mapped; read it.
    pub fn window(self: &Arc<Self>) -> Option<Window> {
        if !loans::may_keep(&self.loan.store.map) {
            return None;
        }
        let (at, hold) = (DATA + self.loan.at(0), Arc::clone(self));
        let store = &self.loan.store;
        let window = Window::new(&store.fd, at, self.len, Some(&store.shelf), hold).ok();
        failpoint::pass("queue_window_open");
        window
    }

    /// Appends all of the message.
    pub fn read_to(&self, into: &mut Vec<u8>) -> Result<(), QueueError> {
        self.loan.store.read(self.loan.at(0), self.len as u64, into).doing("read a message")
    }

    /// The chain still has the message after all.
    pub(super) fn leave(&self) {
        self.loan.pass_on();
    }
}

/// A message to be put.
#[derive(Clone, Copy, Debug)]
pub enum Letter<'a> {
    /// As bytes.
    Bytes(&'a [u8]),
    /// Written already.
    Draft(&'a Draft),
}

impl Letter<'_> {
    /// How many bytes the message has.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Draft(draft) => draft.len,
        }
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What can be put: anything that is bytes, and drafts.
pub trait AsLetter {
    /// The message.
    fn as_letter(&self) -> Letter<'_>;
}

impl<T: AsRef<[u8]>> AsLetter for T {
    #[inline]
    fn as_letter(&self) -> Letter<'_> {
        Letter::Bytes(self.as_ref())
    }
}

impl AsLetter for Draft {
    fn as_letter(&self) -> Letter<'_> {
        Letter::Draft(self)
    }
}

/// Bytes, or what was made of them because they are many.
pub(super) enum Ready<'a> {
    Letter(Letter<'a>),
    Draft(Draft),
}

impl AsLetter for Ready<'_> {
    fn as_letter(&self) -> Letter<'_> {
        match self {
            Self::Letter(letter) => *letter,
            Self::Draft(draft) => Letter::Draft(draft),
        }
    }
}
