//! The messages themselves: a chain of records through segments, from the mark of those who get to the mark of those who put.
//! Every change is prepared where nobody looks, and made by one store of a mark.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::error::{Doing, QueueError};
use super::layout::{AT_HEAD, AT_LITTER, AT_TAIL, Header, Mark, ROW_SIZE, SEGMENT, segments_for, size};
use super::loans::{self, Row};
use super::messages::Messages;
use super::parcel::{Letter, Loan, Parcel};
use super::store::{Store, limit_of, segment_of};
use crate::failpoint;

#[derive(Debug)]
pub(super) struct Chain {
    pub(super) store: Arc<Store>,
}

/// Where a message lies.
struct Record {
    /// Its place in the chain.
    at: u64,
    len: u64,
    /// Where its bytes are, if not in the chain.
    row: Option<Row>,
}

impl Record {
    /// The place of the next one.
    fn end(&self) -> u64 {
        self.at + if self.row.is_some() { ROW_SIZE } else { size(self.len) }
    }
}

/// Somebody who may have taken segments without using them, or used them without giving them back, has died.
pub(super) fn note_death(store: &Store) {
    // Relaxed: read under the lock of those who put, and nothing hangs on when.
    store.map.word32(AT_LITTER).store(1, Relaxed);
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

    pub(super) fn note_death(&self) {
        note_death(&self.store);
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
            let record = self.record(at.offset)?;
            used.extend(segment_of(record.at)..=segment_of(record.end()));
            used.extend(record.row.iter().flat_map(|row| row.first..row.first + row.count));
            at = Mark { count: at.count.wrapping_add(1), offset: record.end() };
        }
        used.extend(
            loans::rows(&self.store.map).into_iter().flat_map(|row| row.first..row.first + row.count),
        );
        used.sort_unstable();
        used.dedup();
        self.store.sweep(&used).doing("give back what the dead have left")?;
        self.store.map.word32(AT_LITTER).store(0, Release);
        Ok(())
    }

    /// The next message.
    fn record(&self, mut at: u64) -> Result<Record, QueueError> {
        const READING: &str = "read from the queue";
        let mut header = Header::unpack(self.store.word(at).doing(READING)?);
        if let Some(Header::Jump(to)) = header {
            at = to;
            header = Header::unpack(self.store.word(at).doing(READING)?);
        }
        match header {
            Some(Header::Message(len)) if self.store.has(at, size(len)) => Ok(Record { at, len, row: None }),
            Some(Header::Row(len)) if self.store.has(at, ROW_SIZE) => {
                let row = Row { first: self.store.word(at + 8).doing(READING)?, count: segments_for(len) };
                if !self.store.has_row(row) {
                    return Err(QueueError::Corrupt);
                }
                Ok(Record { at, len, row: Some(row) })
            }
            _ => Err(QueueError::Corrupt),
        }
    }

    /// Writes a message behind `mark`, where nobody sees it yet, and moves the mark. Under the lock of those who put.
    #[inline]
    pub(super) fn place(&self, mark: &mut Mark, letter: Letter<'_>) -> Result<(), QueueError> {
        const WRITING: &str = "write to the queue";
        let need = match letter {
            Letter::Bytes(message) => size(message.len() as u64),
            Letter::Draft(_) => ROW_SIZE,
        };
        let mut at = mark.offset;
        if at + need > limit_of(at) {
            let taken = self.store.take((need + 8).div_ceil(SEGMENT)).doing("find memory for a message");
            let first = taken.and_then(|row| row.ok_or(QueueError::NoRoom { len: letter.len() }));
            // What was taken for the messages before this one may never be used.
            let to = first.inspect_err(|_| self.note_death())? * SEGMENT;
            failpoint::pass("queue_segment_taken");
            self.store.set_word(at, Header::Jump(to).pack()).doing(WRITING)?;
            at = to;
        } else if at.is_multiple_of(SEGMENT) {
            // The very first one.
            self.store.back(segment_of(at), 1).doing("find memory for a message")?;
        }
        let written = match letter {
            Letter::Bytes(message) => self
                .store
                .set_word(at, Header::Message(message.len() as u64).pack())
                .and_then(|()| self.store.write(at + 8, message)),
            Letter::Draft(draft) => self
                .store
                .set_word(at, Header::Row(draft.len() as u64).pack())
                .and_then(|()| self.store.set_word(at + 8, draft.loan.row.first)),
        };
        written.doing(WRITING).inspect_err(|_| self.note_death())?;
        *mark = Mark { count: mark.count.wrapping_add(1), offset: at + need };
        Ok(())
    }

    /// Lets everybody see what lies before the mark.
    pub(super) fn show(&self, mark: Mark) {
        // SYNC(queue.put): pairs with `tail`.
        self.store.map.word64(AT_TAIL).store(mark.pack(), Release);
    }

    /// Reads the message behind `mark` and moves the mark; notes segments that are passed. A message that has a row of its own is
    /// only taken on loan, by `lend`, unless that refuses. Under the lock of those who get.
    #[inline]
    pub(super) fn fetch(
        &self,
        mark: &mut Mark,
        into: &mut Messages,
        passed: &mut Vec<(u64, u64)>,
        lend: impl FnOnce(Row) -> Option<Loan>,
    ) -> Result<u64, QueueError> {
        let record = self.record(mark.offset)?;
        if record.at != mark.offset {
            passed.push((segment_of(mark.offset), segment_of(mark.offset) + 1));
        }
        match record.row {
            None => self.read(record.at + 8, record.len, into)?,
            Some(row) => match lend(row) {
                Some(loan) => {
                    into.parcels.push((into.ends.len(), Arc::new(Parcel::new(loan, record.len as usize))))
                }
                None => {
                    self.read(row.first * SEGMENT, record.len, into)?;
                    passed.push((row.first, row.first + row.count));
                }
            },
        }
        into.ends.push(into.bytes.len());
        let end = record.end();
        if segment_of(end) > segment_of(record.at) {
            passed.push((segment_of(record.at), segment_of(end)));
        }
        *mark = Mark { count: mark.count.wrapping_add(1), offset: end };
        Ok(size(record.len))
    }

    fn read(&self, at: u64, len: u64, into: &mut Messages) -> Result<(), QueueError> {
        self.store.read(at, len, &mut into.bytes).doing("read from the queue")
    }

    /// Takes everything before the mark out of the queue.
    pub(super) fn remove(&self, mark: Mark) {
        // SYNC(queue.get): pairs with `head`.
        self.store.map.word64(AT_HEAD).store(mark.pack(), Release);
    }
}
