//! Segments: shared memory with one descriptor that cells lie in.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::{CellError, Mapping, cannot};
use crate::sys::{Identity, descriptor, life, me, memfd};

/// What cells begin at and are multiples of: a line of the processor's cache, so that neighbours do not disturb each other.
pub(super) const LINE: usize = 64;
const MAGIC: u64 = u64::from_be_bytes(*b"billiard");
/// Changes with what cells mean.
const LAYOUT: u32 = 1;
const AT_MAGIC: usize = 0;
const AT_LAYOUT: usize = 8;
const AT_NAMESPACE: usize = 16;
/// How much of a new segment has memory behind it at once.
const HEAD: u64 = 4096;

/// Shared memory that cells lie in.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) map: Mapping,
    pub(super) fd: ManuallyDrop<OwnedFd>,
    /// Which file it is, whatever its descriptor's number.
    pub(super) file: File,
    opener: Identity,
}

/// A file by device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct File(u64, u64);

impl File {
    pub(super) fn of(fd: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(fd)?;
        Ok(Self(stat.st_dev, stat.st_ino))
    }
}

impl Segment {
    /// A new one, of which only the head has memory behind it.
    pub(super) fn create(len: usize) -> Result<Self, CellError> {
        let doing = "make shared memory";
        let fd = memfd::create(len as u64, HEAD).map_err(cannot(doing))?;
        let map = Mapping::new(&fd, 0, len).map_err(cannot(doing))?;
        let file = File::of(&fd).map_err(cannot(doing))?;
        map.word32(AT_LAYOUT).store(LAYOUT, Relaxed);
        map.word64(AT_NAMESPACE).store(life::namespace(), Relaxed);
        map.word64(AT_MAGIC).store(MAGIC, Release);
        Ok(Self { map, fd: ManuallyDrop::new(fd), file, opener: me() })
    }

    pub(super) fn open(fd: OwnedFd, file: File) -> Result<Self, CellError> {
        let doing = "map shared memory";
        let len = match memfd::length(&fd) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(CellError::NotOurs),
            length => length.map_err(cannot(doing))? as usize,
        };
        if len < 2 * LINE {
            return Err(CellError::NotOurs);
        }
        let map = Mapping::new(&fd, 0, len).map_err(cannot(doing))?;
        if map.word64(AT_MAGIC).load(Acquire) != MAGIC || map.word32(AT_LAYOUT).load(Relaxed) != LAYOUT {
            return Err(CellError::NotOurs);
        }
        life::settle_in(map.word64(AT_NAMESPACE).load(Relaxed));
        Ok(Self { map, fd: ManuallyDrop::new(fd), file, opener: me() })
    }

    /// Whether its descriptor is still its own: the program may have closed it, and opened something else under its number.
    pub(super) fn has_descriptor(&self) -> bool {
        File::of(&*self.fd).is_ok_and(|file| file == self.file)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // FORK: a child may have closed what it inherited and opened something else under this number; then it is not ours
        // to close.
        if self.opener.is_me() || self.has_descriptor() {
            descriptor::close_raw(self.fd.as_raw_fd());
        }
    }
}
