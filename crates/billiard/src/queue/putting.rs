//! Putting.

use std::sync::atomic::Ordering::Relaxed;

use super::error::{Doing, QueueError};
use super::handle::Queue;
use super::layout::{AT_GET, AT_PUT, AT_TAIL, LARGE, segments_for, size};
use super::loans::{self, Row, Side};
use super::lock::{Held, Locked, here, try_lock};
use super::parcel::{AsLetter, Draft, Letter, Loan, Ready};
use super::watch::{Rest, publish, rest};
use super::{totals, writers};
use crate::failpoint;
use crate::sys::Deadline;
use crate::sys::robust::Block;
use crate::sys::stream::Piece;

/// As many large messages of one call are copied while nobody waits for it; there are places for few more.
pub const MOST_DRAFTS: usize = 16;

/// How a `put` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// This many messages are in the queue, in one piece and in order.
    Done(usize),
    /// There was no room before the deadline.
    Full,
    /// A signal handler ran first.
    Interrupted,
}

/// How an attempt to get a draft ended.
#[derive(Debug)]
pub enum Drafting {
    /// Here it is.
    Draft(Draft),
    /// Too many are being written: put the bytes.
    Refused,
    /// There was no room before the deadline.
    Full,
    /// A signal handler ran first.
    Interrupted,
}

impl Queue {
    /// Puts messages that fit without sleeping, as many as there is room for; `None` if that cannot be told without waiting
    /// for a lock.
    #[inline]
    pub fn try_put(&self, messages: &[impl AsLetter]) -> Result<Option<usize>, QueueError> {
        let here = here().doing("put")?;
        let Some(held) = try_lock(self.block(AT_PUT), here, self.spin) else { return Ok(None) };
        let put = self.put_under(&held, messages)?;
        drop(held);
        self.cool()?;
        Ok(Some(put))
    }

    /// Puts messages: as many as there is room for at once, at least one. They are in the queue together or not at all.
    ///
    /// # Errors
    /// There is no memory left; then nothing was put.
    ///
    /// # Blocking
    /// While the queue is full; until the deadline or a signal handler.
    pub fn put(&self, messages: &[impl AsLetter], deadline: Deadline) -> Result<Put, QueueError> {
        if messages.is_empty() {
            return Ok(Put::Done(0));
        }
        if messages.iter().any(|message| is_large(&message.as_letter())) {
            return self.put_large(messages, deadline);
        }
        self.put_ready(messages, deadline)
    }

    /// Copies what is large before anybody has to wait for it.
    fn put_large(&self, messages: &[impl AsLetter], deadline: Deadline) -> Result<Put, QueueError> {
        let (mut ready, mut drafts) = (Vec::new(), 0);
        for message in messages.iter().take(self.most as usize) {
            let letter = message.as_letter();
            match letter {
                Letter::Bytes(bytes) if is_large(&letter) && drafts < MOST_DRAFTS => {
                    match self.draft(bytes.len(), deadline)? {
                        Drafting::Draft(draft) => {
                            let half = bytes.len() / 2;
                            draft.write(0, Piece::of(&bytes[..half]))?;
                            failpoint::pass("queue_half_written");
                            draft.write(half, Piece::of(&bytes[half..]))?;
                            ready.push(Ready::Draft(draft));
                            drafts += 1;
                        }
                        Drafting::Refused => ready.push(Ready::Letter(letter)),
                        Drafting::Full if ready.is_empty() => return Ok(Put::Full),
                        Drafting::Interrupted if ready.is_empty() => return Ok(Put::Interrupted),
                        // What there is may still fit.
                        Drafting::Full | Drafting::Interrupted => break,
                    }
                }
                _ => ready.push(Ready::Letter(letter)),
            }
        }
        self.put_ready(&ready, deadline)
    }

    /// Room for a message of `len` bytes, to be written and then put. Worth it for large ones: whoever puts a draft keeps nobody
    /// waiting while it is written.
    ///
    /// A full queue is waited for first, so that those who wait take no memory.
    ///
    /// # Errors
    /// There is no memory left.
    ///
    /// # Blocking
    /// While the queue is full; until the deadline or a signal handler.
    pub fn draft(&self, len: usize, deadline: Deadline) -> Result<Drafting, QueueError> {
        const PUTTING: &str = "put";
        let here = here().doing(PUTTING)?;
        while self.is_full() {
            if deadline.passed() {
                return Ok(Drafting::Full);
            }
            let woken = rest(self.block(AT_GET), self.room(), here, self.spin, deadline, || !self.is_full());
            match woken.doing(PUTTING)? {
                Rest::Up(duty) => self.hand_on(duty, AT_GET, || !self.is_full()).doing(PUTTING)?,
                Rest::TimedOut => return Ok(Drafting::Full),
                Rest::Interrupted => return Ok(Drafting::Interrupted),
            }
        }
        let held = match self.locked(AT_PUT, here, deadline).doing(PUTTING)? {
            Locked::Held(held) => held,
            Locked::TimedOut => return Ok(Drafting::Full),
            Locked::Interrupted => return Ok(Drafting::Interrupted),
        };
        self.tidy(&held)?;
        let (store, count) = (&self.chain.store, segments_for(len as u64));
        let reserved = store.reserve(count).doing("find memory for a message");
        // What was reserved of it is litter then.
        let first = reserved.inspect_err(|_| self.chain.note_death())?.ok_or(QueueError::NoRoom { len })?;
        failpoint::pass("queue_reserved");
        let row = Row { first, count };
        let Some(loan) = Loan::enter(store, Side::Put, self.local().process, row) else {
            store.give_back(first, first + count).doing("give memory back")?;
            return Ok(Drafting::Refused);
        };
        drop(held);
        failpoint::pass("queue_lent_to_write");
        store.back_row(row).doing("find memory for a message")?;
        Ok(Drafting::Draft(Draft::new(loan, len)))
    }

    fn put_ready(&self, messages: &[impl AsLetter], deadline: Deadline) -> Result<Put, QueueError> {
        const PUTTING: &str = "put";
        let here = here().doing(PUTTING)?;
        let mut duty = None;
        loop {
            let outcome = match self.locked(AT_PUT, here, deadline).doing(PUTTING)? {
                Locked::Held(held) => match self.put_under(&held, messages) {
                    Ok(0) => Ok(None),
                    Ok(count) => Ok(Some(Put::Done(count))),
                    Err(error) => Err(error),
                },
                Locked::TimedOut => Ok(Some(Put::Full)),
                Locked::Interrupted => Ok(Some(Put::Interrupted)),
            };
            self.hand_on(duty.take(), AT_GET, || !self.is_full()).doing(PUTTING)?;
            if let Some(put) = outcome? {
                self.cool()?;
                return Ok(put);
            }
            if deadline.passed() {
                return Ok(Put::Full);
            }
            let woken = rest(self.block(AT_GET), self.room(), here, self.spin, deadline, || !self.is_full());
            match woken.doing(PUTTING)? {
                Rest::Up(given) => duty = given,
                Rest::TimedOut => return Ok(Put::Full),
                Rest::Interrupted => return Ok(Put::Interrupted),
            }
        }
    }

    /// Puts what there is room for. Under the lock of those who put.
    #[inline]
    fn put_under(&self, held: &Held<'_, Block>, messages: &[impl AsLetter]) -> Result<usize, QueueError> {
        failpoint::pass("queue_put_locked");
        self.tidy(held)?;
        let (chain, map) = (&self.chain, &self.chain.store.map);
        let local = self.local();
        // Relaxed: only this process reads it.
        if !local.entered.load(Relaxed) {
            writers::enter(map);
            local.entered.store(true, Relaxed);
        }
        let mut mark = chain.tail();
        let filled = chain.len();
        let most = messages.len().min(self.most.saturating_sub(filled) as usize);
        let (mut used, mut count) = (self.used_bytes(), 0);
        let before = used;
        while count < most && used.is_none_or(|used| used < self.most_bytes) {
            let letter = messages[count].as_letter();
            chain.place(&mut mark, letter)?;
            used = used.map(|used| used + size(letter.len() as u64));
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        if let (Some(before), Some(used)) = (before, used) {
            let total = totals::current(map, AT_TAIL) + (used - before);
            totals::prepare(map, AT_TAIL, mark, total);
        }
        failpoint::pass("queue_placed");
        if filled == 0 && self.has_bell() {
            // Before the messages can be seen: a bell that rings for nothing is silenced, one that does not ring is not missed.
            self.bell.ring();
        }
        publish(held, &[self.messages()], 1, || chain.show(mark));
        failpoint::pass("queue_put");
        for message in &messages[..count] {
            if let Letter::Draft(draft) = message.as_letter() {
                draft.loan.pass_on();
            }
        }
        Ok(count)
    }

    /// Gives back what the dead have left, if somebody has died.
    #[inline]
    fn tidy(&self, held: &Held<'_, Block>) -> Result<(), QueueError> {
        let chain = &self.chain;
        if held.inherited || loans::somebody_died(&chain.store.map) {
            chain.note_death();
        }
        if chain.has_litter() {
            // In this order always: nobody takes the first lock while holding the second.
            held.beside(self.block(AT_GET), self.spin, || chain.sweep()).doing("put")??;
        }
        Ok(())
    }
}

fn is_large(letter: &Letter<'_>) -> bool {
    matches!(letter, Letter::Bytes(bytes) if bytes.len() >= LARGE)
}
