//! Bytes on their way: small ones in place, larger ones on the heap, large ones in shared memory.

use std::sync::Arc;

use crate::arena::Lease;

const SMALL: usize = 22;

/// The bytes of one message. What they mean is the business of those at both ends.
#[derive(Debug)]
pub enum Message {
    /// Up to 22 bytes, without an allocation.
    Small(u8, [u8; SMALL]),
    /// On the heap.
    Heap(Box<[u8]>),
    /// In shared memory, where it can be used in place.
    Shared(Arc<Lease>),
}

impl Message {
    /// A message that owns a copy of `bytes`.
    #[must_use]
    pub fn copy(bytes: &[u8]) -> Self {
        if bytes.len() <= SMALL {
            let mut small = [0; SMALL];
            small[..bytes.len()].copy_from_slice(bytes);
            Self::Small(bytes.len() as u8, small)
        } else {
            Self::Heap(bytes.into())
        }
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Small(len, _) => usize::from(*len),
            Self::Heap(bytes) => bytes.len(),
            Self::Shared(lease) => lease.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they are in private memory.
    #[must_use]
    pub fn private(&self) -> Option<&[u8]> {
        match self {
            Self::Small(len, bytes) => Some(&bytes[..usize::from(*len)]),
            Self::Heap(bytes) => Some(bytes),
            Self::Shared(_) => None,
        }
    }

    /// The bytes, copied into private memory if they are shared.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        match self {
            Self::Shared(lease) => {
                let mut bytes = Vec::new();
                lease.read_to(0, lease.len(), &mut bytes);
                bytes
            }
            _ => self.private().unwrap_or_default().to_vec(),
        }
    }
}

const _: () = assert!(size_of::<Message>() == 24);
