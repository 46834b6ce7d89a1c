//! Getting.

use std::io;

use super::error::{Doing, QueueError};
use super::handle::{ANY_BYTES, Queue};
use super::layout::{AT_GET, AT_HEAD, AT_PUT};
use super::loans::Side;
use super::lock::{Held, Locked, here, lock, try_lock};
use super::messages::Messages;
use super::parcel::Loan;
use super::watch::{Rest, publish, rest};
use super::{totals, warmth};
use crate::failpoint;
use crate::sys::robust::{Block, Here};
use crate::sys::{Deadline, now};

/// As many large messages of one call are copied while nobody waits for it; there are places for few more.
const MOST_PARCELS: usize = 16;

/// How a `get` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// This many messages were appended to those of the caller.
    Some(usize),
    /// There was none before the deadline.
    Empty,
    /// A signal handler ran first.
    Interrupted,
}

impl Queue {
    /// Gets up to `most` messages that are there, without sleeping; `None` if that cannot be told without waiting for a lock.
    #[inline]
    pub fn try_get(&self, most: usize, into: &mut Messages) -> Result<Option<usize>, QueueError> {
        if self.is_empty() && !self.has_bell() {
            return Ok(Some(0));
        }
        let here = here().doing("get")?;
        let Some(held) = try_lock(self.block(AT_GET), here, self.spin) else { return Ok(None) };
        let got = self.get_under(&held, most, into)?;
        drop(held);
        self.silence(here).doing("get")?;
        self.settle(into)?;
        Ok(Some(got))
    }

    /// Gets up to `most` messages, at least one.
    ///
    /// A message leaves the queue with one store, when it has been copied, or, if it is a large one, just before. Whoever is
    /// killed before that has got nothing, and another one gets it; whoever is killed afterwards has got it. So a message is
    /// never got twice.
    ///
    /// # Blocking
    /// While the queue is empty; until the deadline or a signal handler.
    pub fn get(&self, most: usize, into: &mut Messages, deadline: Deadline) -> Result<Got, QueueError> {
        let got = self.take(most, into, deadline)?;
        failpoint::pass("queue_taken");
        into.unpack()?;
        Ok(got)
    }

    /// Gets messages as [`Queue::get`] does, but leaves large ones where they are, as [`Parcel`](super::Parcel)s, for the caller
    /// to copy to where they are wanted.
    ///
    /// # Blocking
    /// As for [`Queue::get`].
    pub fn take(&self, most: usize, into: &mut Messages, deadline: Deadline) -> Result<Got, QueueError> {
        const GETTING: &str = "get";
        let here = here().doing(GETTING)?;
        let mut duty = None;
        loop {
            let outcome = if self.is_empty() {
                Ok(None)
            } else {
                match self.locked(AT_GET, here, deadline).doing(GETTING)? {
                    Locked::Held(held) => match self.get_under(&held, most, into) {
                        Ok(0) => Ok(None),
                        Ok(count) => Ok(Some(Got::Some(count))),
                        Err(error) => Err(error),
                    },
                    Locked::TimedOut => Ok(Some(Got::Empty)),
                    Locked::Interrupted => Ok(Some(Got::Interrupted)),
                }
            };
            self.hand_on(duty.take(), AT_PUT, || !self.is_empty()).doing(GETTING)?;
            self.silence(here).doing(GETTING)?;
            if let Some(got) = outcome? {
                self.settle(into)?;
                return Ok(got);
            }
            if deadline.passed() {
                return Ok(Got::Empty);
            }
            if self.spin_for_message() {
                continue;
            }
            let start = now();
            let cools = self.cool()?;
            let until = cools.map_or(deadline, |at| deadline.sooner(Deadline::At(at)));
            let up = rest(self.block(AT_PUT), self.messages(), here, self.spin, until, || !self.is_empty());
            match up.doing(GETTING)? {
                Rest::Up(given) => {
                    duty = given;
                    if let Ok(spin) = self.local().spin.try_lock() {
                        spin.slept(now().since(start));
                    }
                }
                Rest::TimedOut if !deadline.passed() => {}
                Rest::TimedOut => return Ok(Got::Empty),
                Rest::Interrupted => return Ok(Got::Interrupted),
            }
        }
    }

    /// The last large message may be kept for long, so this is the time to give back what it does not need.
    #[inline]
    fn settle(&self, got: &Messages) -> Result<(), QueueError> {
        if got.parcels.is_empty() {
            return Ok(());
        }
        warmth::settle(&self.chain.store, self.local().process).doing("give memory back")
    }

    fn spin_for_message(&self) -> bool {
        self.local().spin.try_lock().is_ok_and(|spin| spin.until(|| !self.is_empty()))
    }

    #[inline]
    fn get_under(
        &self,
        held: &Held<'_, Block>,
        most: usize,
        into: &mut Messages,
    ) -> Result<usize, QueueError> {
        failpoint::pass("queue_get_locked");
        let chain = &self.chain;
        if held.inherited {
            chain.note_death();
        }
        let mut mark = chain.head();
        let count = most.min(chain.len() as usize);
        if count == 0 {
            return Ok(0);
        }
        let (bytes, ends, parcels) = (into.bytes.len(), into.ends.len(), into.parcels.len());
        let (mut passed, mut size) = (Vec::new(), 0);
        for _ in 0..count {
            let may_lend = into.parcels.len() - parcels < MOST_PARCELS;
            let lend = |row| {
                let process = self.local().process.filter(|_| may_lend);
                Loan::enter(&chain.store, Side::Get, process, row)
            };
            match chain.fetch(&mut mark, into, &mut passed, lend) {
                Ok(of_this) => size += of_this,
                Err(error) => {
                    into.bytes.truncate(bytes);
                    into.ends.truncate(ends);
                    into.parcels.drain(parcels..).for_each(|(_, parcel)| parcel.leave());
                    return Err(error);
                }
            }
        }
        if self.most_bytes != ANY_BYTES {
            let map = &chain.store.map;
            totals::prepare(map, AT_HEAD, mark, totals::current(map, AT_HEAD) + size);
        }
        failpoint::pass("queue_copied");
        publish(held, &[self.room()], 1, || chain.remove(mark));
        failpoint::pass("queue_got");
        for (first, end) in passed {
            chain.store.give_back(first, end).doing("give memory back")?;
        }
        Ok(count)
    }

    /// Silences the bell if there is nothing to ring for.
    #[inline]
    fn silence(&self, here: Here) -> io::Result<()> {
        if self.has_bell() && self.is_empty() {
            let held = lock(self.block(AT_PUT), here, self.spin)?;
            // Nothing is put meanwhile.
            if self.is_empty() {
                self.bell.clear();
            }
            drop(held);
        }
        Ok(())
    }
}
