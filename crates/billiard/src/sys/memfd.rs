//! Anonymous shared memory: no name, nothing to leak.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::descriptor::above_standard;
use super::stream::{Piece, Room};
use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, ftruncate,
    memfd_create,
};

/// Makes `len` bytes of anonymous shared memory, sealed against ever changing its size. Only `backed` bytes at the start
/// have memory behind them; use [`back`] before touching more.
pub fn create(len: u64, backed: u64) -> io::Result<OwnedFd> {
    let fd = growing(len)?;
    if backed > 0 {
        back(&fd, 0, backed)?;
    }
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Makes `len` bytes of anonymous memory that grows with what is written to it.
pub(super) fn growing(len: u64) -> io::Result<OwnedFd> {
    growing_as("billiard", len)
}

/// The same, under another name in the kernel's lists of what a process has mapped.
pub(crate) fn growing_as(label: &str, len: u64) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // KERNEL: MFD_NOEXEC_SEAL since 6.3; older kernels answer EINVAL and do without.
    let fd = match memfd_create(label, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(rustix::io::Errno::INVAL) => memfd_create(label, flags)?,
        made => made?,
    };
    let fd = above_standard(fd)?;
    ftruncate(&fd, len)?;
    Ok(fd)
}

/// Makes anonymous memory that holds `bytes` and can be read like a file, from the start.
pub fn holding(bytes: &[u8]) -> io::Result<OwnedFd> {
    let len = bytes.len() as u64;
    let fd = create(len, len)?;
    let mut at = 0;
    while at < bytes.len() {
        at += rustix::io::pwrite(&fd, &bytes[at..], at as u64)?;
    }
    Ok(fd)
}

/// Everything that such memory holds.
pub fn contents(fd: impl AsFd) -> io::Result<Vec<u8>> {
    let len = usize::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or(0);
    let mut bytes = vec![0; len];
    let mut at = 0;
    while at < len {
        match rustix::io::pread(&fd, &mut bytes[at..], at as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => at += n,
        }
    }
    Ok(bytes)
}

/// How long such memory is that somebody else has made.
///
/// # Errors
/// `InvalidData` if its size could still change: touching what is gone by then would kill the process.
pub fn length(fd: impl AsFd) -> io::Result<u64> {
    if !fcntl_get_seals(&fd)?.contains(SealFlags::SHRINK | SealFlags::GROW) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(rustix::fs::fstat(&fd)?.st_size.cast_unsigned())
}

/// Nobody writes to such memory any more, nor changes its size.
pub(crate) fn seal(fd: impl AsFd) -> io::Result<()> {
    Ok(fcntl_add_seals(fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?)
}

/// Whether nobody can write to such memory, nor change its size.
pub(crate) fn is_sealed(fd: impl AsFd) -> io::Result<bool> {
    Ok(fcntl_get_seals(fd)?.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE))
}

/// Puts memory behind a range, so that touching it cannot fail later.
pub fn back(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    retry(|| fallocate(&fd, FallocateFlags::KEEP_SIZE, offset, len))
}

/// Gives the memory behind a range back to the system; it reads as zeros afterwards.
pub fn release(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    retry(|| fallocate(&fd, FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE, offset, len))
}

/// Fills a buffer from an offset on.
pub(crate) fn read_at(fd: impl AsFd, mut offset: u64, mut into: &mut [u8]) -> io::Result<()> {
    while !into.is_empty() {
        match rustix::io::pread(&fd, &mut *into, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => (into, offset) = (&mut into[n..], offset + n as u64),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Appends `len` bytes from an offset on, without making the room for them readable first.
pub(crate) fn read_to(fd: impl AsFd, mut offset: u64, len: usize, into: &mut Vec<u8>) -> io::Result<()> {
    into.reserve_exact(len);
    let mut left = len;
    while left > 0 {
        let end = into.len();
        // No more than asked for, however much room there happens to be.
        let room = &mut into.spare_capacity_mut()[..left];
        let n = match rustix::io::pread(&fd, room, offset) {
            Ok((filled, _)) => filled.len(),
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // SAFETY: the kernel has just written that many bytes behind the end.
        unsafe { into.set_len(end + n) };
        (left, offset) = (left - n, offset + n as u64);
    }
    Ok(())
}

/// Writes bytes from an offset on. Where there is no memory left that is an error, as it would not be for a mapping.
pub(crate) fn write_at(fd: impl AsFd, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(&fd, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => (bytes, offset) = (&bytes[n..], offset + n as u64),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The same for memory that others may write meanwhile.
pub(crate) fn write_piece_at(fd: BorrowedFd<'_>, mut offset: u64, mut piece: Piece<'_>) -> io::Result<()> {
    while !piece.is_empty() {
        // SAFETY: `piece.len()` readable bytes, by the invariant of `Piece`.
        let rc =
            unsafe { libc::pwrite(fd.as_raw_fd(), piece.start().cast(), piece.len(), offset.cast_signed()) };
        match usize::try_from(rc) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                piece.skip(n);
                offset += n as u64;
            }
            Err(_) => interrupted_only()?,
        }
    }
    Ok(())
}

/// Fills all the room from an offset on.
pub(crate) fn fill_at(fd: BorrowedFd<'_>, mut offset: u64, room: &mut Room<'_>) -> io::Result<()> {
    while room.left() > 0 {
        // SAFETY: `room.left()` writable bytes, by the invariant of `Room`.
        let rc =
            unsafe { libc::pread(fd.as_raw_fd(), room.start().cast(), room.left(), offset.cast_signed()) };
        match usize::try_from(rc) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                room.skip(n);
                offset += n as u64;
            }
            Err(_) => interrupted_only()?,
        }
    }
    Ok(())
}

fn interrupted_only() -> io::Result<()> {
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        error => Err(error),
    }
}

/// How long a file this process may make.
#[must_use]
pub(crate) fn most_length() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Fsize).current.unwrap_or(u64::MAX)
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}
