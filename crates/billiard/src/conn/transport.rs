//! Whole amounts through a descriptor: waits, where one read or write does not do, until all has been moved. Whoever is
//! interrupted goes on later with what is left of the same room or pieces.

use std::io;
use std::os::fd::BorrowedFd;

use super::error::{ConnError, os};
use super::frame::HeadReader;
use crate::failpoint;
use crate::sys::Deadline;
use crate::sys::Interrupts;
use crate::sys::poll::{Awaited, Woken, poll_one};
use crate::sys::stream::{self, Kind, Piece, Room};

/// After so much without a pause the caller gets to see its signals.
const STRETCH: usize = 8 << 20;

/// A descriptor and how to wait for it.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// What it leads to.
    pub kind: Kind,
    /// When to give up.
    pub deadline: Deadline,
    /// What else ends a sleep.
    pub interrupts: Option<Interrupts<'a>>,
}

/// Why not all has been moved yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// The descriptor is in non-blocking mode.
    NotNow,
    /// The deadline has passed.
    TimedOut,
    /// A signal handler has run, or may want to.
    Interrupted,
}

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// To the end of what was asked for.
    All,
    /// To the end of the stream.
    Ended,
    /// As far as the room or the pieces say, for a reason.
    Paused(Pause),
}

/// Reads until there is no room left.
///
/// # Blocking
/// Until then, the end of the stream, the deadline or a signal handler; not at all if the descriptor is in non-blocking mode.
///
/// # Errors
/// What the kernel says.
pub fn fill(line: Line<'_>, room: &mut Room<'_>) -> io::Result<Moved> {
    let mut moved = 0;
    while room.left() > 0 {
        match stream::read(line.fd, line.kind, room) {
            Ok(0) => return Ok(Moved::Ended),
            Ok(count) => {
                moved += count;
                if room.left() > 0 {
                    failpoint::pass("conn.receiving");
                }
            }
            Err(error) => {
                if let Some(pause) = pause(line, Awaited::Data, error)? {
                    return Ok(Moved::Paused(pause));
                }
                continue;
            }
        }
        if moved >= STRETCH && room.left() > 0 {
            return Ok(Moved::Paused(Pause::Interrupted));
        }
    }
    Ok(Moved::All)
}

/// Writes until nothing is left of the pieces.
///
/// # Blocking
/// Until then, the deadline or a signal handler; not at all if the descriptor is in non-blocking mode.
///
/// # Errors
/// What the kernel says, `BrokenPipe` above all.
pub fn drain(line: Line<'_>, pieces: &mut [Piece<'_>]) -> io::Result<Moved> {
    let mut moved = 0;
    let mut first = 0;
    loop {
        while pieces.get(first).is_some_and(Piece::is_empty) {
            first += 1;
        }
        let left = &mut pieces[first..];
        if left.is_empty() {
            return Ok(Moved::All);
        }
        if moved >= STRETCH {
            return Ok(Moved::Paused(Pause::Interrupted));
        }
        match stream::write(line.fd, line.kind, left) {
            Ok(mut count) => {
                moved += count;
                for piece in &mut *left {
                    let taken = count.min(piece.len());
                    piece.skip(taken);
                    count -= taken;
                }
                if left.iter().any(|piece| !piece.is_empty()) {
                    failpoint::pass("conn.sending");
                }
            }
            Err(error) => {
                if let Some(pause) = pause(line, Awaited::Room, error)? {
                    return Ok(Moved::Paused(pause));
                }
            }
        }
    }
}

/// Waits after `WouldBlock`, unless there is a reason to pause.
fn pause(line: Line<'_>, what: Awaited, error: io::Error) -> io::Result<Option<Pause>> {
    if error.kind() != io::ErrorKind::WouldBlock {
        return Err(error);
    }
    // Whoever gives no time at all only wants to look: then its mode makes no difference, and a look was had.
    if line.deadline == Deadline::AT_ONCE {
        return Ok(Some(Pause::TimedOut));
    }
    if !stream::is_blocking(line.fd)? {
        return Ok(Some(Pause::NotNow));
    }
    Ok(match poll_one(line.fd, what, line.deadline, line.interrupts)? {
        Woken::Ready => None,
        Woken::TimedOut => Some(Pause::TimedOut),
        Woken::Interrupted => Some(Pause::Interrupted),
    })
}

/// What [`read_head`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The length of the message that follows.
    Length(u64),
    /// Not all of the head is there yet.
    Paused(Pause),
}

/// Reads the head of a message, and nothing behind it.
///
/// # Blocking
/// As [`fill`] does.
///
/// # Errors
/// The stream has ended, before or inside the head; the head is none; what the kernel says.
pub fn read_head(line: Line<'_>, head: &mut HeadReader) -> Result<Heard, ConnError> {
    loop {
        if let Some(length) = head.length()? {
            failpoint::pass("conn.head");
            return Ok(Heard::Length(length));
        }
        let Some(place) = head.missing() else { continue };
        let want = place.len();
        let mut room = Room::of(place);
        let moved = fill(line, &mut room).map_err(os("receive"))?;
        let arrived = want - room.left();
        head.arrived(arrived);
        match moved {
            Moved::All => {}
            Moved::Ended if head.is_untouched() => return Err(ConnError::Closed),
            Moved::Ended => return Err(ConnError::Torn { got: arrived as u64, want: want as u64 }),
            Moved::Paused(pause) => return Ok(Heard::Paused(pause)),
        }
    }
}

/// From this size on, a message is worth a larger buffer in the kernel.
const WORTH_WIDENING: usize = 256 * 1024;
/// KERNEL: the most that a pipe may have without privileges; a socket may be kept to less.
const WIDE: usize = 1 << 20;

/// Makes the kernel's buffer larger if a message of so many bytes gains by it.
pub fn prepare(fd: BorrowedFd<'_>, kind: Kind, message_len: usize) {
    if message_len >= WORTH_WIDENING {
        stream::widen(fd, kind, WIDE);
    }
}
