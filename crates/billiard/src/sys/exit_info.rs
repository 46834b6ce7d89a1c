//! How a process ended that is no child of ours: told by newer kernels, to whoever holds a descriptor of it.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::pidfd::{ExitStatus, PidFd};

/// The kernel's `struct pidfd_info`, in its first published size.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<Info>() == 64);

/// `_IOWR(0xff, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl = 0xc040_ff0b_u32 as libc::Ioctl;
const INFO_EXIT: u64 = 1 << 3;
/// The fields of `/proc/PID/stat` behind the name: the state comes first, the exit code fiftieth.
const STATE: usize = 0;
const EXIT_CODE: usize = 49;

impl PidFd {
    /// How the process ended. `None` while it runs, and where the kernel does not tell.
    ///
    /// KERNEL: told since 6.15 once somebody has reaped it; until then, by `/proc` at any time.
    #[must_use]
    pub fn outcome(&self) -> Option<ExitStatus> {
        if !self.has_ended().ok()? {
            return None;
        }
        // It may be reaped between the two looks, so there is a third.
        let descriptor = self.descriptor();
        let reaped = || descriptor.and_then(of_reaped);
        reaped().or_else(|| of_unreaped(self.pid())).or_else(reaped)
    }
}

fn of_reaped(pidfd: BorrowedFd<'_>) -> Option<ExitStatus> {
    let mut info = Info { mask: INFO_EXIT, ..Info::default() };
    // SAFETY: the request names this structure and its size, and the kernel writes no more than that size.
    let rc = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (rc == 0 && info.mask & INFO_EXIT != 0).then(|| decode(info.exit_code))
}

fn of_unreaped(pid: i32) -> Option<ExitStatus> {
    let status = decode(unreaped(pid)?);
    // KERNEL: who may not look into a process is shown zero, whatever the truth is.
    (status != ExitStatus::Code(0) || may_look_into(pid)).then_some(status)
}

/// What `/proc` shows as the status of a process that has ended and that nobody has waited for.
fn unreaped(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    if *fields.get(STATE)? != "Z" {
        return None;
    }
    fields.get(EXIT_CODE)?.parse().ok()
}

/// Whether a process has ended and nobody has waited for it.
pub(super) fn is_unreaped(pid: i32) -> bool {
    unreaped(pid).is_some()
}

/// Whether the kernel shows this process everything about that one: it is the same user's in every respect, or we are root.
fn may_look_into(pid: i32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let all = |name: &str, own: u32| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.is_some_and(|ids| ids.split_ascii_whitespace().all(|id| id.parse() == Ok(own)))
    };
    let user = rustix::process::geteuid();
    user.is_root() || (all("Uid:", user.as_raw()) && all("Gid:", rustix::process::getegid().as_raw()))
}

const fn decode(wait_status: i32) -> ExitStatus {
    if libc::WIFEXITED(wait_status) {
        ExitStatus::Code(libc::WEXITSTATUS(wait_status))
    } else if libc::WIFSIGNALED(wait_status) {
        ExitStatus::Signal(libc::WTERMSIG(wait_status))
    } else {
        ExitStatus::Unknown
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::sys::poll::{Woken, readable};
    use crate::sys::{Deadline, now};

    #[test]
    fn a_status_that_nobody_has_taken_is_read_without_taking_it() {
        for (script, wanted) in [("exit 7", ExitStatus::Code(7)), ("kill -9 $$", ExitStatus::Signal(9))] {
            let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pidfd = PidFd::open(child.id().cast_signed()).unwrap();
            let deadline = Deadline::At(now().after(std::time::Duration::from_secs(60)));
            assert_eq!(readable(&[pidfd.descriptor().unwrap()], deadline, None).unwrap(), Woken::Ready);
            assert_eq!(pidfd.outcome(), Some(wanted));
            child.wait().unwrap();
            // Reaped by somebody else: newer kernels still know, older ones say nothing.
            assert!(pidfd.outcome().is_none_or(|outcome| outcome == wanted));
        }
    }

    #[test]
    fn a_process_that_runs_has_not_ended() {
        let own = PidFd::open(crate::sys::pid()).unwrap();
        assert!(!own.has_ended().unwrap());
        assert_eq!(own.outcome(), None);
    }
}
