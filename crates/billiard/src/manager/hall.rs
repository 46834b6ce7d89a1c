//! Many clients and one thread that answers them. Whatever a client does or leaves undone, it costs the others no time.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::line::{Found, Line};
use crate::conn::ConnError;
use crate::sys::poll::{Awaited, Woken, poll_one};
use crate::sys::spin::Spin;
use crate::sys::stream::Piece;
use crate::sys::{Deadline, EventFd, Identity, Interrupts, Poller, me, now};

/// A client's place. It is never given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seat(u64);

impl Seat {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The seat with a number.
    #[must_use]
    pub const fn of(number: u64) -> Self {
        Self(number)
    }
}

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It has asked: [`Hall::question`].
    Question,
    /// Nothing that concerns anybody.
    Nothing,
}

#[derive(Debug)]
struct Seats {
    lines: HashMap<u64, Line>,
    next: u64,
}

/// Whose bell it is.
const BELL: u64 = 0;

/// Where clients sit.
///
/// # Fork
/// A child gives it up with [`Hall::abandon`]: otherwise its copies of the sockets keep the clients from seeing the server end.
#[derive(Debug)]
pub struct Hall {
    poller: Poller,
    bell: EventFd,
    /// FORK: held for moments, never while anything waits.
    seats: Mutex<Seats>,
    spin: Spin,
    /// Who was answered last.
    last: AtomicU64,
    /// Whether it was the same one as before: then it is likely to be the next, too.
    regular: AtomicBool,
    looks: AtomicU32,
    /// How long a question may be.
    limit: u64,
    owner: Identity,
}

/// While one client is expected to ask, every so many looks go to all of them.
const OTHERS_TOO: u32 = 4;

fn os(doing: &'static str) -> impl FnOnce(io::Error) -> ConnError {
    move |source| ConnError::Os { doing, source }
}

impl Hall {
    /// Without clients.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<Self> {
        let (poller, bell) = (Poller::new()?, EventFd::new()?);
        poller.add(&bell, BELL)?;
        let seats = Mutex::new(Seats { lines: HashMap::new(), next: BELL + 1 });
        Ok(Self {
            poller,
            bell,
            seats,
            spin: Spin::over_kernel(),
            last: AtomicU64::new(BELL),
            regular: AtomicBool::new(false),
            looks: AtomicU32::new(0),
            limit: u64::MAX,
            owner: me(),
        })
    }

    /// Who announces a longer question than this, in bytes, loses its seat.
    #[must_use]
    pub const fn with_limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a client a seat.
    ///
    /// # Errors
    /// It is no socket, or the kernel cannot watch more.
    pub fn adopt(&self, socket: OwnedFd) -> io::Result<Seat> {
        let line = Line::over(socket)?.with_limit(self.limit);
        let mut seats = self.lock();
        let number = seats.next;
        seats.next += 1;
        // It may be ready at once: whoever is told so waits for the lock.
        self.poller.add(&line, number)?;
        seats.lines.insert(number, line);
        Ok(Seat(number))
    }

    /// How many clients sit here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().lines.len()
    }

    /// Whether nobody does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends those who want something, without waiting. Whether there is anything to be done, be it that the bell rang.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn glance(&self, ready: &mut Vec<Seat>) -> io::Result<bool> {
        self.gather(ready, Poller::look)
    }

    fn gather(
        &self,
        ready: &mut Vec<Seat>,
        look: impl FnOnce(&Poller, &mut Vec<u64>) -> io::Result<()>,
    ) -> io::Result<bool> {
        let mut tokens = Vec::new();
        look(&self.poller, &mut tokens)?;
        for token in &tokens {
            if *token == BELL {
                self.bell.clear();
            } else {
                ready.push(Seat(*token));
            }
        }
        Ok(!tokens.is_empty())
    }

    /// Whether one client alone has asked lately: then [`Hall::expect_soon`] is the quicker way to see what it wants, and
    /// [`Hall::glance`] would be in vain.
    #[must_use]
    pub fn is_private(&self) -> bool {
        // Relaxed: it is a guess.
        self.regular.load(Ordering::Relaxed) && self.spin.is_worth_it()
    }

    /// Looks for those who want something again and again, for a while, where experience says that they come so soon. Whether
    /// there is anything to be done.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn expect_soon(&self, ready: &mut Vec<Seat>) -> io::Result<bool> {
        if !self.spin.is_worth_it() {
            return Ok(false);
        }
        // A client that is alone in asking can be asked with one call instead of two; of several any may be the next.
        // Relaxed: it is a guess.
        let is_regular = self.regular.load(Ordering::Relaxed);
        let last = Seat(self.last.load(Ordering::Relaxed));
        let found = self.spin.find(|| {
            let looks = self.looks.fetch_add(1, Ordering::Relaxed);
            if !is_regular || looks.is_multiple_of(OTHERS_TOO) {
                return match self.glance(ready) {
                    Ok(false) => None,
                    found => Some(found),
                };
            }
            self.has_spoken(last).then(|| {
                ready.push(last);
                Ok(true)
            })
        });
        Ok(found.transpose()?.is_some())
    }

    /// Sleeps until somebody wants something.
    ///
    /// # Blocking
    /// Until then, the bell, the deadline, or a signal.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn wait(
        &self,
        ready: &mut Vec<Seat>,
        deadline: Deadline,
        interrupts: Option<Interrupts<'_>>,
    ) -> io::Result<Woken> {
        let start = now();
        // One call of the kernel where there is nothing else to wait for.
        let found = match (interrupts, deadline) {
            (None, Deadline::Never) => self.gather(ready, Poller::wait),
            (Some(Interrupts::Briefly), Deadline::Never) => self.gather(ready, Poller::wait_briefly),
            _ => {
                let woken = poll_one(self.poller.as_fd(), Awaited::Data, deadline, interrupts)?;
                if woken != Woken::Ready {
                    return Ok(woken);
                }
                self.glance(ready).map(|_| true)
            }
        };
        match found {
            Ok(true) => {
                self.spin.slept(now().since(start));
                Ok(Woken::Ready)
            }
            Ok(false) => Ok(Woken::Interrupted),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Woken::Interrupted),
            Err(error) => Err(error),
        }
    }

    /// Ends a wait.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// Whether there is a question, or an end, of somebody who takes its answers.
    fn has_spoken(&self, seat: Seat) -> bool {
        let mut seats = self.lock();
        let line = seats.lines.get_mut(&seat.0).filter(|line| !line.is_behind());
        line.is_some_and(|line| !matches!(line.look(), Ok(Found::Nothing | Found::Part)))
    }

    /// Sees what somebody who is ready wants. What it was still to be told goes first: who does not listen is not asked.
    ///
    /// # Errors
    /// It is gone, or what it says is no message. It loses its seat.
    pub fn look(&self, seat: Seat) -> Result<Look, ConnError> {
        let mut seats = self.lock();
        let Some(line) = seats.lines.get_mut(&seat.0) else { return Ok(Look::Nothing) };
        let looked = self.look_at(line, seat);
        if looked.is_err() {
            self.part(&mut seats, seat);
        }
        looked
    }

    fn look_at(&self, line: &mut Line, seat: Seat) -> Result<Look, ConnError> {
        if line.is_behind() {
            if !line.flush()? {
                return Ok(Look::Nothing);
            }
            self.poller.watch(&*line, seat.0, Awaited::Data).map_err(os("watch a client"))?;
        }
        Ok(if line.look()? == Found::Message { Look::Question } else { Look::Nothing })
    }

    /// Shows somebody the question that was found. None: there is none.
    pub fn question<T>(&self, seat: Seat, see: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.lock().lines.get(&seat.0).map(|line| see(line.message()))
    }

    /// Answers the question. What the client does not take now is kept until it does. Whether more of what it says has arrived
    /// already; if not, it is worth a look when it is ready again.
    ///
    /// # Errors
    /// It is gone, and so is its seat.
    pub fn answer(&self, seat: Seat, pieces: &mut [Piece<'_>]) -> Result<bool, ConnError> {
        let mut seats = self.lock();
        let Some(line) = seats.lines.get_mut(&seat.0) else { return Err(ConnError::Closed) };
        line.take();
        let is_ahead = line.is_ahead();
        self.regular.store(self.last.swap(seat.0, Ordering::Relaxed) == seat.0, Ordering::Relaxed);
        let said = line.say(pieces).and_then(|all| {
            if all {
                return Ok(());
            }
            self.poller.watch(&*line, seat.0, Awaited::Room).map_err(os("watch a client"))
        });
        if said.is_err() {
            self.part(&mut seats, seat);
        }
        said.map(|()| is_ahead)
    }

    fn part(&self, seats: &mut Seats, seat: Seat) -> Option<Line> {
        let line = seats.lines.remove(&seat.0)?;
        // Closing it is not enough where a forked process holds a copy.
        let _ = self.poller.remove(&line);
        Some(line)
    }

    /// Takes a client's line out of the hall, with the question that it has asked. None: it has no seat any more.
    pub fn leave(&self, seat: Seat) -> Option<Line> {
        let mut seats = self.lock();
        self.part(&mut seats, seat)
    }

    /// Hangs up on everybody.
    pub fn clear(&self) {
        let mut seats = self.lock();
        for (_, line) in seats.lines.drain() {
            // Closing it is not enough where a forked process holds a copy.
            let _ = self.poller.remove(&line);
        }
    }

    /// Closes everything, in a forked child: what is watched is the parent's affair.
    pub fn abandon(&self) {
        if !self.owner.is_me() {
            self.lock().lines.clear();
        }
    }
}

#[cfg(test)]
mod tests;
