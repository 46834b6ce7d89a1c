//! The messages between an owner and its zygote.

use crate::sys::packet::MOST_DESCRIPTORS;
use crate::sys::{Ended, ExitStatus};

/// How many descriptors a child can be given, its owner's included: one message carries them, and sometimes the data's.
pub const MOST_KEPT: usize = MOST_DESCRIPTORS - 1;
/// Data up to this size travels inside the message, larger data as a descriptor.
pub(super) const INLINE_MOST: usize = 32 * 1024;
/// No message is longer.
pub(super) const LONGEST: usize = HEAD + INLINE_MOST;

/// Every message begins with so many bytes; a reply has no more.
pub(super) const HEAD: usize = 32;
const START: u32 = 1;
const LOAD: u32 = 2;
const CANCEL: u32 = 3;
const STARTED: u32 = 11;
const FAILED: u32 = 12;
const ENDED: u32 = 13;
const LOADED: u32 = 14;

const CODE: u32 = 0;
const SIGNAL: u32 = 1;
const UNKNOWN: u32 = 2;

/// From the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// Fork a child. The data follows the head, or is the last descriptor.
    Start { id: u64, beside: bool },
    /// Load something; what, is the caller's business, and comes like a child's data.
    Load { id: u64, beside: bool },
    /// That child is not wanted any more.
    Cancel { id: u64 },
}

/// To the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The child says that it runs; its own descriptor comes along, where there are any.
    Started { id: u64, pid: i32 },
    /// No child could be forked.
    Failed { id: u64, errno: i32 },
    /// A child has ended.
    Ended { id: u64, end: Ended },
    /// What was to be loaded has been dealt with.
    Loaded { id: u64 },
}

fn head(kind: u32, aux: u32, id: u64, value: i32, extra: u64) -> [u8; HEAD] {
    let mut bytes = [0; HEAD];
    bytes[..4].copy_from_slice(&kind.to_ne_bytes());
    bytes[4..8].copy_from_slice(&aux.to_ne_bytes());
    bytes[8..16].copy_from_slice(&id.to_ne_bytes());
    bytes[16..20].copy_from_slice(&value.to_ne_bytes());
    bytes[24..].copy_from_slice(&extra.to_ne_bytes());
    bytes
}

struct Head {
    kind: u32,
    aux: u32,
    id: u64,
    value: i32,
    extra: u64,
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn parse(bytes: &[u8]) -> Option<Head> {
    Some(Head {
        kind: u32::from_ne_bytes(take(bytes, 0)?),
        aux: u32::from_ne_bytes(take(bytes, 4)?),
        id: u64::from_ne_bytes(take(bytes, 8)?),
        value: i32::from_ne_bytes(take(bytes, 16)?),
        extra: u64::from_ne_bytes(take(bytes, 24)?),
    })
}

impl Request {
    /// Which request this is, or is about.
    pub(super) const fn id(self) -> u64 {
        let (Self::Start { id, .. } | Self::Load { id, .. } | Self::Cancel { id }) = self;
        id
    }

    pub(super) fn encode(self) -> [u8; HEAD] {
        match self {
            Self::Start { id, beside } => head(START, u32::from(beside), id, 0, 0),
            Self::Load { id, beside } => head(LOAD, u32::from(beside), id, 0, 0),
            Self::Cancel { id } => head(CANCEL, 0, id, 0, 0),
        }
    }

    /// The request, and what follows its head.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let Head { kind, aux, id, .. } = parse(bytes)?;
        let request = match kind {
            START => Self::Start { id, beside: aux != 0 },
            LOAD => Self::Load { id, beside: aux != 0 },
            CANCEL => Self::Cancel { id },
            _ => return None,
        };
        Some((request, &bytes[HEAD..]))
    }
}

impl Reply {
    pub(super) fn encode(self) -> [u8; HEAD] {
        match self {
            Self::Started { id, pid } => head(STARTED, 0, id, pid, 0),
            Self::Failed { id, errno } => head(FAILED, 0, id, errno, 0),
            Self::Ended { id, end } => {
                let (aux, value) = match end.status {
                    ExitStatus::Code(code) => (CODE, code),
                    ExitStatus::Signal(signal) => (SIGNAL, signal),
                    ExitStatus::Unknown => (UNKNOWN, 0),
                };
                head(ENDED, aux, id, value, end.peak_rss_kib.map_or(0, |kib| kib.saturating_add(1)))
            }
            Self::Loaded { id } => head(LOADED, 0, id, 0, 0),
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let Head { kind, aux, id, value, extra } = parse(bytes)?;
        Some(match kind {
            STARTED => Self::Started { id, pid: value },
            FAILED => Self::Failed { id, errno: value },
            ENDED => {
                let status = match aux {
                    CODE => ExitStatus::Code(value),
                    SIGNAL => ExitStatus::Signal(value),
                    _ => ExitStatus::Unknown,
                };
                Self::Ended { id, end: Ended { status, peak_rss_kib: extra.checked_sub(1) } }
            }
            LOADED => Self::Loaded { id },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn replies() -> impl Strategy<Value = Reply> {
        let status = prop_oneof![
            (0..256).prop_map(ExitStatus::Code),
            (1..65).prop_map(ExitStatus::Signal),
            Just(ExitStatus::Unknown)
        ];
        let peak = proptest::option::of(0..u64::MAX - 1);
        prop_oneof![
            any::<(u64, i32)>().prop_map(|(id, pid)| Reply::Started { id, pid }),
            any::<(u64, i32)>().prop_map(|(id, errno)| Reply::Failed { id, errno }),
            (any::<u64>(), status, peak).prop_map(|(id, status, peak_rss_kib)| Reply::Ended {
                id,
                end: Ended { status, peak_rss_kib }
            }),
            any::<u64>().prop_map(|id| Reply::Loaded { id }),
        ]
    }

    proptest! {
        #[test]
        fn a_reply_is_read_as_it_was_written(reply in replies()) {
            prop_assert_eq!(Reply::decode(&reply.encode()), Some(reply));
        }

        #[test]
        fn a_request_is_read_as_it_was_written(id: u64, beside: bool, data: Vec<u8>) {
            for request in [Request::Start { id, beside }, Request::Load { id, beside }, Request::Cancel { id }] {
                let bytes = [&request.encode(), data.as_slice()].concat();
                prop_assert_eq!(Request::decode(&bytes), Some((request, data.as_slice())));
            }
        }

        #[test]
        fn no_bytes_do_any_harm(bytes: Vec<u8>) {
            let _ = (Request::decode(&bytes), Reply::decode(&bytes));
        }
    }
}
