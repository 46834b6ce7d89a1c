//! How messages are kept apart in a stream of bytes: a length goes ahead of each. Four bytes, signed, the high one first; or
//! four bytes that say -1 and eight more with the length, for those that are longer. Nothing here reads or writes.

/// The longest message whose length takes four bytes.
const SHORT_MOST: u64 = i32::MAX as u64;
const SHORT: usize = 4;
const LONG: usize = 12;
const LONG_FOLLOWS: i32 = -1;

/// What a head can say that no sender means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A negative length.
    #[error("the peer announced a message of {0} bytes; whatever it speaks, this is not it")]
    Negative(i64),
}

/// The head of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    bytes: [u8; LONG],
    len: usize,
}

impl Head {
    /// The head of a message of so many bytes.
    #[must_use]
    pub fn of(message_len: usize) -> Self {
        let mut bytes = [0; LONG];
        let long = message_len as u64;
        let len = if long <= SHORT_MOST {
            bytes[..SHORT].copy_from_slice(&(long as i32).to_be_bytes());
            SHORT
        } else {
            bytes[..SHORT].copy_from_slice(&LONG_FOLLOWS.to_be_bytes());
            bytes[SHORT..].copy_from_slice(&long.to_be_bytes());
            LONG
        };
        Self { bytes, len }
    }

    /// The bytes that go ahead of the message.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Reads a head that arrives bit by bit, and never a byte of what follows it.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadReader {
    bytes: [u8; LONG],
    have: usize,
}

impl HeadReader {
    /// Whether nothing has arrived yet.
    #[must_use]
    pub const fn is_untouched(&self) -> bool {
        self.have == 0
    }

    /// Where the next bytes belong: exactly as many as are certain to be the head's. None if it is complete.
    #[must_use]
    pub fn missing(&mut self) -> Option<&mut [u8]> {
        let end = if self.have < SHORT { SHORT } else { LONG };
        (self.length() == Ok(None)).then(|| &mut self.bytes[self.have..end])
    }

    /// Notes that so many bytes were put to where [`HeadReader::missing`] said.
    pub fn arrived(&mut self, count: usize) {
        self.have = (self.have + count).min(LONG);
    }

    /// The length of the message, if all of the head is there.
    ///
    /// # Errors
    /// It is none.
    pub fn length(&self) -> Result<Option<u64>, FrameError> {
        if self.have < SHORT {
            return Ok(None);
        }
        let (short, long) = self.bytes.split_at(SHORT);
        let short = short.iter().fold(0_u32, |sum, byte| sum << 8 | u32::from(*byte)).cast_signed();
        if short != LONG_FOLLOWS {
            return u64::try_from(short).map(Some).map_err(|_| FrameError::Negative(short.into()));
        }
        if self.have < LONG {
            return Ok(None);
        }
        let long = long.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)).cast_signed();
        u64::try_from(long).map(Some).map_err(|_| FrameError::Negative(long))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds a reader as if so many bytes arrived at a time. What it says, and how many bytes it took.
    fn read(stream: &[u8], steps: &[usize]) -> (Result<Option<u64>, FrameError>, usize) {
        let mut reader = HeadReader::default();
        let mut at = 0;
        let mut steps = steps.iter().cycle();
        while let Some(place) = reader.missing() {
            let count = place.len().min(*steps.next().unwrap_or(&1)).min(stream.len() - at);
            if count == 0 {
                break;
            }
            place[..count].copy_from_slice(&stream[at..at + count]);
            reader.arrived(count);
            at += count;
        }
        (reader.length(), at)
    }

    #[test]
    fn heads_are_what_they_always_were() {
        assert_eq!(Head::of(0).as_bytes(), [0, 0, 0, 0]);
        assert_eq!(Head::of(50).as_bytes(), [0, 0, 0, 0x32]);
        assert_eq!(Head::of(0x7fff_ffff).as_bytes(), [0x7f, 0xff, 0xff, 0xff]);
        let long = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x80, 0, 0, 0];
        assert_eq!(Head::of(0x8000_0000).as_bytes(), long);
    }

    #[test]
    fn lengths_that_nobody_means_are_refused() {
        assert_eq!(read(&[0xff, 0xff, 0xff, 0xfe], &[4]).0, Err(FrameError::Negative(-2)));
        assert_eq!(read(&[0x80, 0, 0, 0], &[4]).0, Err(FrameError::Negative(i32::MIN.into())));
        assert_eq!(read(&[0xff; 12], &[4]).0, Err(FrameError::Negative(-1)));
    }

    fn lengths() -> impl Strategy<Value = usize> {
        prop_oneof![0..100_usize, 0x7fff_fff0..0x8000_0010_usize, 0..(i64::MAX as usize)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn what_is_written_is_read_however_it_arrives(
            len in lengths(),
            rest: Vec<u8>,
            steps in proptest::collection::vec(1..5_usize, 1..6),
        ) {
            let head = Head::of(len);
            let stream = [head.as_bytes(), &rest].concat();
            prop_assert_eq!(read(&stream, &steps), (Ok(Some(len as u64)), head.as_bytes().len()));
        }

        #[test]
        fn no_bytes_do_any_harm(stream: Vec<u8>, steps in proptest::collection::vec(1..20_usize, 1..6)) {
            let (said, taken) = read(&stream, &steps);
            match said {
                Ok(Some(len)) => prop_assert_eq!(Head::of(len as usize).as_bytes().len().max(taken), taken),
                Ok(None) => prop_assert_eq!(taken, stream.len()),
                Err(FrameError::Negative(len)) => prop_assert!(len < 0),
            }
        }
    }
}
