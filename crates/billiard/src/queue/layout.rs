//! What lies where in a queue's shared memory.

/// Changes when anything below does.
pub(super) const LAYOUT: u32 = 4;
pub(super) const MAGIC: u32 = 0xb111_0e0e;

pub(super) const AT_MAGIC: usize = 0;
pub(super) const AT_LAYOUT: usize = 4;
/// The most messages that the queue holds.
pub(super) const AT_MOST: usize = 8;
/// One when somebody has asked for the bell, which rings from then on.
pub(super) const AT_BELL: usize = 12;
/// One when segments may have been left behind by the dead.
pub(super) const AT_LITTER: usize = 16;
/// Bytes for segments.
pub(super) const AT_SPAN: usize = 24;
/// When somebody last looked whether those who have loans live.
pub(super) const AT_LOOKED: usize = 48;
/// The most bytes that messages may take for another one to be put.
pub(super) const AT_MOST_BYTES: usize = 56;
/// When memory that is not to stay was last kept for the next large message; zero for never.
pub(super) const AT_KEPT: usize = 64;
/// A bit for each loan of those who put, then of those who get.
pub(super) const AT_LOANED: usize = 72;
/// The lock of those who put.
pub(super) const AT_PUT: usize = 128;
/// Those who wait for a message. Under the lock of those who put.
pub(super) const AT_MESSAGES: usize = 256;
/// The lock of those who get.
pub(super) const AT_GET: usize = 384;
/// Those who wait for room. Under the lock of those who get.
pub(super) const AT_ROOM: usize = 512;
/// The lock of those who have done tasks.
pub(super) const AT_TASKS: usize = 640;
/// Those who wait until all tasks are done. Under that lock.
pub(super) const AT_ALL_DONE: usize = 768;
/// How far has been put: a mark, and behind it how many bytes.
pub(super) const AT_TAIL: usize = 896;
/// How far has been got: a mark, and behind it how many bytes.
pub(super) const AT_HEAD: usize = 1024;
/// How many tasks are done; wraps around.
pub(super) const AT_DONE: usize = 1152;
/// How often all tasks were done.
pub(super) const AT_ZEROS: usize = 1156;
/// About how many sleep on each watch.
pub(super) const AT_SLEEPERS: usize = 1280;
/// The duties of those who got up for a message, for room, and for the end of all tasks.
pub(super) const AT_DUTIES: usize = 1536;
/// Who puts: pairs of process id and start time, zero for a free row.
pub(super) const AT_WRITERS: usize = 2048;
pub(super) const WRITERS: usize = 128;
/// Who writes to segments that no message refers to yet, and who reads from some that none refers to any more.
pub(super) const AT_LOANS: usize = 4096;
/// As many as a word has bits for those who put.
pub(super) const LOANS_TO_PUT: usize = 64;
/// More for those who get: they may keep theirs.
pub(super) const LOANS_TO_GET: usize = 256;
/// A bit for each segment that is mapped: whether there is memory behind it.
pub(super) const AT_BACKED: usize = 16384;
/// A bit for each segment: whether it is taken.
pub(super) const AT_BITMAP: usize = 20480;
/// Where the segments begin.
pub(super) const DATA: u64 = AT_BITMAP as u64 + MOST_SEGMENTS / 8;
/// What has memory behind it from the start.
pub(super) const BACKED: u64 = AT_BITMAP as u64 + 4096;

/// Small, so that a queue that is kept short stays in the processor's cache.
pub(super) const SEGMENT: u64 = 64 * 1024;
/// As many bytes as a mark's position can tell apart.
pub(super) const MOST_SPAN: u64 = 8 << 32;
const MOST_SEGMENTS: u64 = MOST_SPAN / SEGMENT;
/// Bytes of segments that are mapped. Tests come to what lies beyond without having to fill so much.
pub(super) const MAPPED: u64 = if cfg!(test) { 16 << 20 } else { 256 << 20 };
/// Segments that keep their memory.
pub(super) const WARM: u64 = (4 << 20) / SEGMENT;
/// Messages from this length on lie in segments of their own, and are copied while nobody waits for it.
pub(super) const LARGE: usize = SEGMENT as usize;

const _: () = assert!(AT_DUTIES + 3 * 128 <= AT_WRITERS);
const _: () = assert!(AT_WRITERS + WRITERS * 16 <= AT_LOANS);
const _: () = assert!(AT_LOANED + (LOANS_TO_PUT + LOANS_TO_GET) / 8 <= AT_PUT);
const _: () = assert!(AT_LOANS + (LOANS_TO_PUT + LOANS_TO_GET) * 32 <= AT_BACKED);
const _: () = assert!(AT_BACKED as u64 + MAPPED / SEGMENT / 8 <= AT_BITMAP as u64);
const _: () = assert!(DATA.is_multiple_of(4096));

/// How far a queue has been put or got: how many messages, and where the next one lies. One word, so that both change at
/// once: the store of a mark is the moment at which messages are in the queue, or out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Wraps around.
    pub(super) count: u32,
    /// A multiple of eight.
    pub(super) offset: u64,
}

impl Mark {
    pub(super) const fn unpack(word: u64) -> Self {
        Self { count: (word >> 32) as u32, offset: (word & 0xffff_ffff) * 8 }
    }

    pub(super) const fn pack(self) -> u64 {
        ((self.count as u64) << 32) | (self.offset / 8)
    }
}

/// What stands in front of a message, or in place of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// A message of this many bytes follows.
    Message(u64),
    /// A message of this many bytes lies in a row of segments; the number of the first follows.
    Row(u64),
    /// The next header lies at this offset.
    Jump(u64),
}

const KIND: u64 = 56;
const IS_MESSAGE: u64 = 0x4d;
const IS_ROW: u64 = 0x52;
const IS_JUMP: u64 = 0x4a;

impl Header {
    pub(super) const fn pack(self) -> u64 {
        match self {
            Self::Message(len) => (IS_MESSAGE << KIND) | len,
            Self::Row(len) => (IS_ROW << KIND) | len,
            Self::Jump(to) => (IS_JUMP << KIND) | to,
        }
    }

    /// `None`: no header of ours.
    pub(super) const fn unpack(word: u64) -> Option<Self> {
        let value = word & ((1 << KIND) - 1);
        match word >> KIND {
            IS_MESSAGE if value < MOST_SPAN => Some(Self::Message(value)),
            IS_ROW if value < MOST_SPAN => Some(Self::Row(value)),
            IS_JUMP if value < MOST_SPAN && value.is_multiple_of(8) => Some(Self::Jump(value)),
            _ => None,
        }
    }
}

/// The room that a message takes with its header.
pub(super) const fn size(len: u64) -> u64 {
    8 + len.next_multiple_of(8)
}

/// What stands in the chain for a message in a row of segments.
pub(super) const ROW_SIZE: u64 = 16;

/// The segments that a message of so many bytes takes in a row of its own.
pub(super) const fn segments_for(len: u64) -> u64 {
    if len == 0 { 1 } else { len.div_ceil(SEGMENT) }
}
