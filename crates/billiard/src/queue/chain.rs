//! The messages themselves: a chain of records through segments, from the mark of those who get to the mark of those who put.
//! Every change is prepared where nobody looks, and made by one store of a mark.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::error::{Doing, QueueError};
use super::layout::{AT_HEAD, AT_LITTER, AT_TAIL, Header, Mark, SEGMENT, size};
use super::store::{Store, limit_of, segment_of};
use crate::failpoint;

#[derive(Debug)]
pub(super) struct Chain {
    pub(super) store: Store,
}

/// Messages that were got: their bytes, one after the other, and where each ends.
#[derive(Debug, Default)]
pub struct Messages {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where each message ends in them.
    pub ends: Vec<usize>,
}

impl Messages {
    /// The messages, in the order in which they were got.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let message = &self.bytes[start..end];
            start = end;
            message
        })
    }

    /// Forgets all of them, and keeps some of the memory.
    pub fn clear(&mut self) {
        const KEEP: usize = 1 << 20;
        self.bytes.clear();
        self.bytes.shrink_to(KEEP);
        self.ends.clear();
    }
}

impl Chain {
    pub(super) fn tail(&self) -> Mark {
        // SYNC(queue.put): the messages before the mark happen before it.
        Mark::unpack(self.store.map.word64(AT_TAIL).load(Acquire))
    }

    pub(super) fn head(&self) -> Mark {
        // SYNC(queue.get): whatever was read before the mark was read before it.
        Mark::unpack(self.store.map.word64(AT_HEAD).load(Acquire))
    }

    /// How many messages there are. Only grows under the lock of those who put, only shrinks under that of those who get.
    #[inline]
    pub(super) fn len(&self) -> u32 {
        // In this order: the head never passes the tail.
        let head = self.head().count;
        self.tail().count.wrapping_sub(head)
    }

    /// Somebody who may have taken segments without using them, or used them without giving them back, has died.
    pub(super) fn note_death(&self) {
        // Relaxed: read under the lock of those who put, and nothing hangs on when.
        self.store.map.word32(AT_LITTER).store(1, Relaxed);
    }

    pub(super) fn has_litter(&self) -> bool {
        // Relaxed: as above.
        self.store.map.word32(AT_LITTER).load(Relaxed) != 0
    }

    /// Gives back the segments that the dead have left. Under both locks.
    pub(super) fn sweep(&self) -> Result<(), QueueError> {
        let (mut at, tail) = (self.head(), self.tail());
        let mut used = vec![segment_of(at.offset), segment_of(tail.offset)];
        while at.count != tail.count {
            let (start, len) = self.record(at.offset)?;
            let end = start + size(len);
            used.extend(segment_of(start)..=segment_of(end));
            at = Mark { count: at.count.wrapping_add(1), offset: end };
        }
        used.sort_unstable();
        used.dedup();
        self.store.sweep(&used).doing("give back what the dead have left")?;
        self.store.map.word32(AT_LITTER).store(0, Release);
        Ok(())
    }

    /// Where the next record really lies, and how long its message is.
    fn record(&self, mut at: u64) -> Result<(u64, u64), QueueError> {
        const READING: &str = "read from the queue";
        let mut header = Header::unpack(self.store.word(at).doing(READING)?);
        if let Some(Header::Jump(to)) = header {
            at = to;
            header = Header::unpack(self.store.word(at).doing(READING)?);
        }
        match header {
            Some(Header::Message(len)) if self.store.has(at, size(len)) => Ok((at, len)),
            _ => Err(QueueError::Corrupt),
        }
    }

    /// Writes a message behind `mark`, where nobody sees it yet, and moves the mark. Under the lock of those who put.
    #[inline]
    pub(super) fn place(&self, mark: &mut Mark, message: &[u8]) -> Result<(), QueueError> {
        const WRITING: &str = "write to the queue";
        let need = size(message.len() as u64);
        let mut at = mark.offset;
        if at + need > limit_of(at) {
            let taken = self.store.take((need + 8).div_ceil(SEGMENT)).doing("find memory for a message");
            let first = taken.and_then(|row| row.ok_or(QueueError::NoRoom { len: message.len() }));
            // What was taken for the messages before this one may never be used.
            let to = first.inspect_err(|_| self.note_death())? * SEGMENT;
            failpoint::pass("queue_segment_taken");
            self.store.set_word(at, Header::Jump(to).pack()).doing(WRITING)?;
            at = to;
        } else if at.is_multiple_of(SEGMENT) {
            // The very first one.
            self.store.back(segment_of(at), 1).doing("find memory for a message")?;
        }
        let written = self.store.set_word(at, Header::Message(message.len() as u64).pack());
        let written = written.and_then(|()| self.store.write(at + 8, message)).doing(WRITING);
        written.inspect_err(|_| self.note_death())?;
        *mark = Mark { count: mark.count.wrapping_add(1), offset: at + need };
        Ok(())
    }

    /// Lets everybody see what lies before the mark.
    pub(super) fn show(&self, mark: Mark) {
        // SYNC(queue.put): pairs with `tail`.
        self.store.map.word64(AT_TAIL).store(mark.pack(), Release);
    }

    /// Reads the message behind `mark` and moves the mark; notes segments that are passed. Under the lock of those who get.
    #[inline]
    pub(super) fn fetch(
        &self,
        mark: &mut Mark,
        into: &mut Vec<u8>,
        passed: &mut Vec<(u64, u64)>,
    ) -> Result<(), QueueError> {
        let (at, len) = self.record(mark.offset)?;
        if at != mark.offset {
            passed.push((segment_of(mark.offset), segment_of(mark.offset) + 1));
        }
        self.store.read(at + 8, len, into).doing("read from the queue")?;
        let end = at + size(len);
        if segment_of(end) > segment_of(at) {
            passed.push((segment_of(at), segment_of(end)));
        }
        *mark = Mark { count: mark.count.wrapping_add(1), offset: end };
        Ok(())
    }

    /// Takes everything before the mark out of the queue.
    pub(super) fn remove(&self, mark: Mark) {
        // SYNC(queue.get): pairs with `head`.
        self.store.map.word64(AT_HEAD).store(mark.pack(), Release);
    }
}
