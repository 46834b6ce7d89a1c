//! Messages that were got.

use std::sync::Arc;

use super::error::QueueError;
use super::parcel::Parcel;

/// Messages that were got: their bytes, one after the other, and where each ends. Large ones may be [`Parcel`]s: see
/// [`Queue::take`](super::Queue::take).
#[derive(Debug, Default)]
pub struct Messages {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Where each message ends in them. A parcel has none there.
    pub ends: Vec<usize>,
    /// The parcels, with the number of the message that each of them is.
    pub(super) parcels: Vec<(usize, Arc<Parcel>)>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub enum Message<'a> {
    /// Its bytes.
    Bytes(&'a [u8]),
    /// Where they still are.
    Parcel(&'a Arc<Parcel>),
}

impl Messages {
    /// The messages, in the order in which they were got. Those that were taken as parcels are empty here.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let message = &self.bytes[start..end];
            start = end;
            message
        })
    }

    /// The messages, in the order in which they were got, each as it came.
    pub fn each(&self) -> impl Iterator<Item = Message<'_>> {
        let mut parcels = self.parcels.iter().peekable();
        self.iter().enumerate().map(move |(number, bytes)| match parcels.next_if(|(of, _)| *of == number) {
            Some((_, parcel)) => Message::Parcel(parcel),
            None => Message::Bytes(bytes),
        })
    }

    /// Copies the parcels to where the other messages are.
    pub(super) fn unpack(&mut self) -> Result<(), QueueError> {
        if self.parcels.is_empty() {
            return Ok(());
        }
        let mut whole = Self::default();
        for message in self.each() {
            match message {
                Message::Bytes(bytes) => whole.bytes.extend_from_slice(bytes),
                Message::Parcel(parcel) => parcel.read_to(&mut whole.bytes)?,
            }
            whole.ends.push(whole.bytes.len());
        }
        *self = whole;
        Ok(())
    }

    /// Forgets all of them, and keeps some of the memory.
    pub fn clear(&mut self) {
        const KEEP: usize = 1 << 20;
        self.bytes.clear();
        self.bytes.shrink_to(KEEP);
        self.ends.clear();
        self.parcels.clear();
    }
}
