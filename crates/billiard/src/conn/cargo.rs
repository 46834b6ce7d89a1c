//! What travels beside a message: large buffers, in memory whose descriptor is sent with the message's first byte. The receiver uses
//! them where they lie. The kernel frees the memory with whoever has it last, and with a message that nobody receives.
//!
//! A sender uses memory again that its receiver says it has done with. One that is killed never says so: then the memory goes with it, as
//! soon as the sender wants other memory instead. A peer that lies only harms itself: no length or place is read from this memory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::{ConnError, os};
use crate::arena::{Mapping, Window};
use crate::failpoint;
use crate::sys::stream::Piece;
use crate::sys::{Identity, PerProcess, carrying, me, memfd};

/// So much memory of the kernel's may be taken by what was not received yet, for more cargo to be sent: a dozen messages. Cargo counts for
/// next to nothing there, and a sender that is faster than its peer would fill the machine's memory.
const MOST_UNREAD: usize = 16 * 1024;

/// What stands in front of the buffers: a word that tells whether the receiver has done with them.
const HEAD: usize = 4096;
const RELEASED: u32 = 1;
/// Memory is made in such pieces, so that what is about as long fits the next time.
const STEP: usize = 64 * 1024;
/// A sender keeps so much memory, and so many descriptors, for what it sends next: fresh memory costs more than the copy.
const MOST_KEPT: usize = 64 << 20;
const MOST_PIECES: usize = 16;

/// The memory of one sender. It is used again when the receiver has done with it.
///
/// # Fork
/// A child has a stock of its own, which is empty.
#[derive(Debug)]
pub struct Stock(PerProcess<Mutex<Vec<Cargo>>>);

impl Default for Stock {
    fn default() -> Self {
        Self(PerProcess::new())
    }
}

impl Stock {
    fn kept(&self) -> MutexGuard<'_, Vec<Cargo>> {
        self.0.get(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for so many bytes.
    ///
    /// # Errors
    /// No memory or descriptor is left.
    pub fn find(&self, len: usize) -> Result<Cargo, ConnError> {
        let mut kept = self.kept();
        let fits = |cargo: &Cargo| cargo.room >= len && cargo.room / 4 <= len && cargo.is_released();
        if let Some(index) = kept.iter().position(fits) {
            let cargo = kept.remove(index);
            // Relaxed: whoever receives it does so later, through the kernel.
            cargo.state().store(0, Relaxed);
            return Ok(cargo);
        }
        drop(kept);
        Cargo::new(len)
    }

    /// Takes memory back, whether it was sent or not.
    pub fn keep(&self, cargo: Cargo) {
        let mut kept = self.kept();
        kept.push(cargo);
        let mut whole: usize = kept.iter().map(|cargo| cargo.room).sum();
        let mut count = kept.len();
        // The oldest first: if its receiver has not done with it by now, it may never have. The memory is the receiver's then.
        kept.retain(|cargo| {
            let stays = whole <= MOST_KEPT && count <= MOST_PIECES;
            if !stays {
                (whole, count) = (whole - cargo.room, count - 1);
            }
            stays
        });
    }

    /// Lets go of all of it.
    pub fn clear(&self) {
        self.kept().clear();
    }
}

/// Memory that is being loaded, and that nobody else has.
#[derive(Debug)]
pub struct Cargo {
    fd: OwnedFd,
    map: Mapping,
    room: usize,
}

impl Cargo {
    fn new(len: usize) -> Result<Self, ConnError> {
        let make = || {
            let room = len.checked_next_multiple_of(STEP).ok_or(io::ErrorKind::OutOfMemory)?;
            let whole = room.checked_add(HEAD).ok_or(io::ErrorKind::OutOfMemory)?;
            let fd = memfd::create(whole as u64, whole as u64)?;
            let map = Mapping::new(&fd, 0, whole)?;
            map.populate(0, whole);
            Ok(Self { fd, map, room })
        };
        make().map_err(os("find memory for a large object"))
    }

    fn state(&self) -> &AtomicU32 {
        self.map.word32(0)
    }

    fn is_released(&self) -> bool {
        // SYNC(cargo.release): whatever the receiver has read was read before.
        self.state().load(Acquire) == RELEASED
    }

    /// It was not sent after all.
    pub fn recall(&self) {
        self.state().store(RELEASED, Release);
    }

    /// Loads a part of it.
    ///
    /// # Panics
    /// The part lies outside.
    pub fn load(&self, at: usize, part: Piece<'_>) {
        self.map.write_piece(HEAD + at, part);
    }

    /// Sends the first bytes of a message, with all of this beside them. How many bytes were sent. Does not wait.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room now.
    pub fn send(&self, stream: BorrowedFd<'_>, first: &[u8]) -> io::Result<usize> {
        if carrying::unread(stream)? > MOST_UNREAD {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        failpoint::pass("conn.loaded");
        let sent = carrying::send(stream, first, self.fd.as_fd())?;
        failpoint::pass("conn.cargo_sent");
        Ok(sent)
    }
}

/// Gives memory back to its sender when it is dropped.
struct Return {
    map: Mapping,
    owner: Identity,
}

impl Drop for Return {
    fn drop(&mut self) {
        // FORK: what the parent has received it gives back itself.
        if self.owner.is_me() {
            failpoint::pass("conn.cargo_done");
            // SYNC(cargo.release): pairs with `is_released`.
            self.map.word32(0).store(RELEASED, Release);
        }
    }
}

/// Cargo that has arrived with a message that says it is `len` bytes, to be used where it is.
///
/// # Errors
/// It is not so long, or its length could still change.
pub fn unload(fd: OwnedFd, len: usize) -> Result<Window, ConnError> {
    let open = || {
        if (memfd::length(&fd)? as usize).checked_sub(HEAD).is_none_or(|room| room < len) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        failpoint::pass("conn.cargo_arrived");
        let back = Return { map: Mapping::new(&fd, 0, HEAD)?, owner: me() };
        Window::new(&Arc::new(fd), HEAD as u64, len, None, back).map_err(|(error, _)| error)
    };
    open().map_err(os("use what came beside a message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::listening;

    #[test]
    fn what_is_loaded_arrives_and_more_than_a_little_waits() {
        let (a, b) = listening::pair().unwrap();
        let cargo = Cargo::new(5000).unwrap();
        cargo.load(4990, Piece::of(b"the end"));
        let mut sent = 0;
        let error = loop {
            match cargo.send(a.as_fd(), &[7]) {
                Ok(one) => sent += one,
                Err(error) => break error,
            }
            assert!(sent < 100, "nothing keeps the sender from filling the memory");
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(sent > 1);
        let (_, fd) = carrying::receive(b.as_fd(), &mut [0]).unwrap();
        let window = unload(fd.unwrap(), 5000).unwrap();
        assert_eq!(window.len(), 5000);
        assert!(!cargo.is_released());
        drop(window);
        assert!(cargo.is_released());
        let (_, fd) = carrying::receive(b.as_fd(), &mut [0]).unwrap();
        assert!(unload(fd.unwrap(), STEP + 1).is_err(), "what is not there is not mapped");
        drop(b);
        assert_eq!(cargo.send(a.as_fd(), &[7]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn memory_is_used_again_when_the_receiver_has_done_with_it() {
        let (a, b) = listening::pair().unwrap();
        let stock = Stock::default();
        let send = |len| {
            let cargo = stock.find(len).unwrap();
            let address = cargo.map.pointer(0, 1);
            cargo.send(a.as_fd(), &[7]).unwrap();
            stock.keep(cargo);
            address
        };
        let receive = |len| unload(carrying::receive(b.as_fd(), &mut [0]).unwrap().1.unwrap(), len).unwrap();
        let first = send(100_000);
        let window = receive(100_000);
        assert_ne!(send(100_000), first, "it is still in use");
        drop((window, receive(100_000)));
        assert_eq!(send(99_000), first);
        drop(receive(99_000));
        let small = stock.find(10_000).unwrap();
        assert_ne!(small.map.pointer(0, 1), first, "much memory is not for little");
        small.recall();
        stock.keep(small);
        for _ in 0..3 * MOST_PIECES {
            stock.keep(Cargo::new(1).unwrap());
        }
        assert_eq!(stock.kept().len(), MOST_PIECES);
        stock.keep(Cargo::new(MOST_KEPT + 1).unwrap());
        assert_eq!(stock.kept().len(), 0);
    }

    #[test]
    fn what_could_be_cut_short_is_refused() {
        let (r, _w) = rustix::pipe::pipe().unwrap();
        assert!(unload(r, 10).is_err());
        let fd = rustix::fs::memfd_create("unsealed", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, 4096).unwrap();
        assert!(unload(fd, 10).is_err());
    }
}
