//! A child process, shared by everybody who waits for it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::zygote::Zygote;
use crate::sys::Interrupts;
use crate::sys::poll::{self, Woken};
use crate::sys::{self, Deadline, Ended, ExitStatus, Identity, PidFd, SignalError};

/// How a wait for a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// It has ended, like this.
    Ended(ExitStatus),
    /// It still ran when the deadline passed.
    TimedOut,
    /// A signal handler ran first: look at the signal, then wait again with the same deadline.
    Interrupted,
}

/// A child of this process. Whoever reaps it first leaves the status here for the others.
///
/// # Fork
/// A forked process is not the parent of this child: there the handle answers only what was known at the fork, takes no
/// lock, and sends no signal.
#[derive(Debug)]
pub struct Child {
    pidfd: PidFd,
    parent: Identity,
    end: Mutex<Option<Ended>>,
    /// The zygote that takes its exit status, and its number there. `None`: we are the kernel's idea of its parent.
    zygote: Option<(Arc<Zygote>, u64)>,
}

impl Drop for Child {
    fn drop(&mut self) {
        // FORK: in a copy, the zygote's lock may be held by a thread that does not exist.
        if let Some((zygote, id)) = &self.zygote
            && self.parent.is_me()
        {
            zygote.forget(*id);
        }
    }
}

impl Child {
    /// Takes charge of a child that nobody has waited for yet.
    pub fn adopt(pid: i32) -> io::Result<Self> {
        match PidFd::open(pid) {
            // Where SIGCHLD is ignored, or somebody waits for all children, it may be gone already.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
                let gone = Self::adopt_by_number(pid)?;
                *gone.lock() = Some(Ended::UNKNOWN);
                Ok(gone)
            }
            pidfd => pidfd.map(Self::of),
        }
    }

    /// Takes charge of a child without a descriptor for it, as on kernels that have none.
    pub fn adopt_by_number(pid: i32) -> io::Result<Self> {
        PidFd::without_descriptor(pid).map(Self::of)
    }

    fn of(pidfd: PidFd) -> Self {
        Self { pidfd, parent: sys::me(), end: Mutex::new(None), zygote: None }
    }

    pub(super) fn of_zygote(pidfd: PidFd, zygote: Arc<Zygote>, id: u64) -> Self {
        Self { pidfd, parent: zygote.owner(), end: Mutex::new(None), zygote: Some((zygote, id)) }
    }

    /// The process id.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pidfd.pid()
    }

    /// A descriptor that becomes readable when the child ends, and stays so. `None` where the kernel has no pidfd.
    #[must_use]
    pub fn sentinel(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.descriptor()
    }

    /// How the child ended, or `None` while it runs. Reaps it the first time.
    pub fn poll(&self) -> io::Result<Option<ExitStatus>> {
        // FORK: a thread of the parent may have held the lock at the fork, and only a parent can reap.
        if !self.parent.is_me() {
            return Ok(self.end.try_lock().map_or(None, |end| end.map(|end| end.status)));
        }
        let mut end = self.lock();
        if end.is_none() {
            *end = match &self.zygote {
                None => self.pidfd.try_wait()?,
                Some((zygote, id)) => zygote.end_of(*id, &self.pidfd)?,
            };
        }
        Ok(end.map(|end| end.status))
    }

    /// The most memory that the child ever had resident, in KiB; known once it was reaped here.
    #[must_use]
    pub fn peak_rss_kib(&self) -> Option<u64> {
        // FORK: only the parent has reaped it.
        if self.parent.is_me() { self.lock().and_then(|end| end.peak_rss_kib) } else { None }
    }

    /// Waits until the child has ended, and reaps it. `interrupts` end the wait too.
    ///
    /// # Blocking
    /// Until the child ends, the deadline, or a signal handler. The lock is not held meanwhile: several threads may wait,
    /// and [`Child::signal`] works.
    pub fn wait(&self, deadline: Deadline, interrupts: Option<Interrupts<'_>>) -> io::Result<Waited> {
        let mut nap = Duration::from_millis(1);
        loop {
            if let Some(status) = self.poll()? {
                return Ok(Waited::Ended(status));
            }
            if !self.parent.is_me() {
                return Ok(Waited::TimedOut);
            }
            let woken = match self.sentinel() {
                Some(pidfd) => poll::readable(&[pidfd], deadline, interrupts)?,
                // KERNEL: without pidfd nothing can be slept on that is certain to wake us: a pipe end stays open in
                // grandchildren, and SIGCHLD belongs to the program. So look, and look less and less often.
                None => match poll::readable(&[], deadline.or_after(nap), interrupts)? {
                    Woken::TimedOut if !deadline.passed() => Woken::Ready,
                    woken => woken,
                },
            };
            let woken = match (&self.zygote, woken) {
                // It has ended, and how comes along in a moment.
                (Some((zygote, _)), Woken::Ready) if self.sentinel().is_some() && self.poll()?.is_none() => {
                    poll::readable(&[zygote.descriptor()], deadline.or_after(nap), interrupts)?
                }
                (_, woken) => woken,
            };
            nap = (nap * 2).min(Duration::from_millis(20));
            match woken {
                Woken::Ready => {}
                Woken::Interrupted => return Ok(Waited::Interrupted),
                Woken::TimedOut if !deadline.passed() => {}
                Woken::TimedOut => return Ok(self.poll()?.map_or(Waited::TimedOut, Waited::Ended)),
            }
        }
    }

    /// Sends a signal, never to anybody else: a child that was reaped gets nothing.
    pub fn signal(&self, signal: i32) -> Result<(), SignalError> {
        self.while_unreaped(|pidfd| pidfd.signal(signal))
    }

    /// Sends a signal to the whole group if the child leads one, else to the child alone.
    pub fn signal_group(&self, signal: i32) -> Result<(), SignalError> {
        self.while_unreaped(|pidfd| if pidfd.signal_group(signal)? { Ok(()) } else { pidfd.signal(signal) })
    }

    fn while_unreaped(
        &self,
        send: impl FnOnce(&PidFd) -> Result<(), SignalError>,
    ) -> Result<(), SignalError> {
        if !self.parent.is_me() {
            return Err(SignalError::Gone);
        }
        // The lock keeps others from reaping it, and so its number from being used again, until the signal is sent.
        let end = self.lock();
        if end.is_some() { Err(SignalError::Gone) } else { send(&self.pidfd) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Ended>> {
        self.end.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn started(program: &str, args: &[&str]) -> i32 {
        // Forgotten by std on purpose: `Child` is the one that reaps it.
        Command::new(program).args(args).spawn().unwrap().id().try_into().unwrap()
    }

    fn both(program: &str, args: &[&str]) -> [Child; 2] {
        [
            Child::adopt(started(program, args)).unwrap(),
            Child::adopt_by_number(started(program, args)).unwrap(),
        ]
    }

    #[test]
    fn a_wait_ends_with_the_exit_code() {
        for child in both("sh", &["-c", "exit 7"]) {
            assert_eq!(child.wait(Deadline::Never, None).unwrap(), Waited::Ended(ExitStatus::Code(7)));
            assert_eq!(child.poll().unwrap(), Some(ExitStatus::Code(7)));
        }
    }

    #[test]
    fn a_wait_times_out_and_the_child_can_still_be_killed() {
        for child in both("sleep", &["1000"]) {
            assert_eq!(child.wait(Deadline::from_seconds(Some(0.01)), None).unwrap(), Waited::TimedOut);
            assert_eq!(child.wait(Deadline::from_seconds(Some(-1.0)), None).unwrap(), Waited::TimedOut);
            child.signal(libc::SIGKILL).unwrap();
            assert_eq!(
                child.wait(Deadline::Never, None).unwrap(),
                Waited::Ended(ExitStatus::Signal(libc::SIGKILL))
            );
            assert!(matches!(child.signal(libc::SIGKILL), Err(SignalError::Gone)));
            assert!(matches!(child.signal_group(libc::SIGKILL), Err(SignalError::Gone)));
        }
    }

    #[test]
    fn reaped_by_somebody_else_is_an_end_with_unknown_status() {
        for child in both("true", &[]) {
            let thief = PidFd::without_descriptor(child.pid()).unwrap();
            assert_eq!(thief.wait().unwrap().map(|end| end.status), Some(ExitStatus::Code(0)));
            assert_eq!(child.wait(Deadline::Never, None).unwrap(), Waited::Ended(ExitStatus::Unknown));
            assert_eq!(child.poll().unwrap().map(ExitStatus::exitcode), Some(255));
        }
    }

    #[test]
    fn several_threads_can_wait_for_one_child() {
        for child in both("sh", &["-c", "sleep 0.05; exit 3"]) {
            std::thread::scope(|scope| {
                let waiters: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| child.wait(Deadline::Never, None))).collect();
                for waiter in waiters {
                    assert_eq!(waiter.join().unwrap().unwrap(), Waited::Ended(ExitStatus::Code(3)));
                }
            });
        }
    }

    #[test]
    fn a_signal_out_of_range_is_refused() {
        let child = Child::adopt(started("sleep", &["1000"])).unwrap();
        for bad in [0, -1, 65, i32::MAX] {
            assert!(matches!(child.signal(bad), Err(SignalError::Os { .. })), "{bad}");
        }
        child.signal(libc::SIGKILL).unwrap();
        assert_eq!(child.wait(Deadline::Never, None).unwrap(), Waited::Ended(ExitStatus::Signal(9)));
    }
}
