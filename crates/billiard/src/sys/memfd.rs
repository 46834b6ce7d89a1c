//! Anonymous shared memory: no name, nothing to leak.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create,
};

/// Makes `len` bytes of anonymous shared memory, sealed against ever changing its size. Only `backed` bytes at the start
/// have memory behind them; use [`back`] before touching more.
pub fn create(len: u64, backed: u64) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // KERNEL: MFD_NOEXEC_SEAL since 6.3; older kernels answer EINVAL and do without.
    let fd = match memfd_create("billiard", flags | MemfdFlags::NOEXEC_SEAL) {
        Err(rustix::io::Errno::INVAL) => memfd_create("billiard", flags)?,
        made => made?,
    };
    ftruncate(&fd, len)?;
    if backed > 0 {
        back(&fd, 0, backed)?;
    }
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Puts memory behind a range, so that touching it cannot fail later.
pub fn back(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    retry(|| fallocate(&fd, FallocateFlags::KEEP_SIZE, offset, len))
}

/// Gives the memory behind a range back to the system; it reads as zeros afterwards.
pub fn release(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    retry(|| fallocate(&fd, FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE, offset, len))
}

fn retry(mut call: impl FnMut() -> rustix::io::Result<()>) -> io::Result<()> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}
