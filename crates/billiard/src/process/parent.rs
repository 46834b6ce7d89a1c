//! The process that a child belongs to, as the child sees it. It need not be the one that the kernel calls the parent: with a
//! zygote that is the zygote.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::sys::poll::readable;
use crate::sys::{Deadline, ExitStatus, Identity, PidFd, me, now, parent_pid, pid, signal, thread};

/// How long a process whose parent has died may take to end by itself.
const GRACE: Duration = Duration::from_millis(300);

/// What becomes of a child whose parent has ended without ending or releasing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orphan {
    /// It ends.
    Ends,
    /// It ends if a signal killed the parent, and lives on if the parent chose to leave, as programs do that start something
    /// and leave it running. Where the kernel does not tell which, it ends.
    MayLive,
}

/// The process that a child belongs to.
#[derive(Debug)]
pub struct Parent {
    pidfd: PidFd,
    /// Where this was made: by the process itself, before a fork, or by a child that was told of it.
    maker: Identity,
    /// In the latter case, whether it is the maker's parent for the kernel, too.
    kin: bool,
}

impl Parent {
    /// The calling process, for a child that it is about to start.
    ///
    /// # Fork
    /// Made before the fork and used after it, it cannot mean somebody else who got the same number.
    pub fn own() -> io::Result<Self> {
        Ok(Self { pidfd: PidFd::open(pid())?, maker: me(), kin: false })
    }

    /// The process `pid`, whose descriptor has come along; `None` where the kernel has none.
    pub fn received(pid: i32, descriptor: Option<OwnedFd>) -> io::Result<Self> {
        let pidfd = match descriptor {
            Some(fd) => PidFd::from_descriptor(pid, fd)?,
            None => PidFd::without_descriptor(pid)?,
        };
        Ok(Self { pidfd, maker: me(), kin: parent_pid() == Some(pid) })
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pidfd.pid()
    }

    /// A descriptor that is readable once it has ended, where the kernel has them.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.descriptor()
    }

    /// Whether it still runs. Right even if the program has closed every descriptor it could find.
    pub fn is_alive(&self) -> io::Result<bool> {
        if self.pidfd.is_whole() {
            return self.pidfd.has_ended().map(|ended| !ended);
        }
        if self.is_the_kernels() {
            return Ok(parent_pid() == Some(self.pid()));
        }
        PidFd::without_descriptor(self.pid())?.has_ended().map(|ended| !ended)
    }

    /// Whether the kernel's own idea of the caller's parent tells the end of this one: in a child that was forked or started
    /// by it.
    fn is_the_kernels(&self) -> bool {
        self.kin == self.maker.is_me()
    }

    /// From now on, the calling process does not outlive it; with [`Orphan::MayLive`], not if it was killed. SIGTERM comes
    /// first, and soon afterwards the end.
    ///
    /// # Fork
    /// Starts a thread, so it belongs into the child, after everything that a fork must do first.
    pub fn watch(self: Arc<Self>, orphan: Orphan) -> io::Result<()> {
        let watch = move || {
            self.wait();
            if orphan == Orphan::MayLive && matches!(self.pidfd.outcome(), Some(ExitStatus::Code(_))) {
                return;
            }
            signal::raise(libc::SIGTERM);
            let _ = readable(&[], Deadline::At(now().after(GRACE)), None);
            // By a signal, so that its own children do not take it for a process that chose to leave.
            signal::raise(libc::SIGKILL);
        };
        thread::spawn_plain(c"billiard-parent", 64 * 1024, Box::new(watch))
    }

    fn wait(&self) {
        while self.is_alive().unwrap_or(true) {
            // KERNEL: without pidfd there is no event for the end of a parent, and it is looked after from time to time. So it
            // is if the program has closed the descriptor: programs that become daemons close all there are.
            if let Some(descriptor) = self.descriptor().filter(|_| self.pidfd.is_whole()) {
                let _ = readable(&[descriptor], Deadline::Never, None);
                if !self.is_alive().unwrap_or(true) {
                    return;
                }
            }
            let _ = readable(&[], Deadline::At(now().after(GRACE)), None);
        }
    }
}
