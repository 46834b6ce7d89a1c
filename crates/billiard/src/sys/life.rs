//! Which process did this, and does it still run? A process id alone lies: it is used again.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::Deadline;
use super::ident::me;
use super::poll::{self, Woken};

const PID_BITS: u32 = 22;
const PID: u64 = (1 << PID_BITS) - 1;
const BEGAN_SHIFT: u32 = 32;
/// Stands for a process that others cannot look at, so that nobody ever takes it for dead.
const HIDDEN: u64 = u32::MAX as u64;

/// One process, told from every other one that has had or will have its number: by the number, and by the tick of the clock
/// at which the process began.
///
/// It fits into one word beside ten bits for whoever keeps it there: those from 22 to 31 are always zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Life(u64);

/// The calling process; zero until somebody asks.
static OWN: AtomicU64 = AtomicU64::new(0);
/// The namespace of the process ids that are written down; zero until somebody asks.
static NAMESPACE: AtomicU64 = AtomicU64::new(0);

impl Life {
    /// All bits that a life may have.
    pub const BITS: u64 = (u64::MAX << BEGAN_SHIFT) | PID;
    /// The first of the ten bits that are always zero.
    pub const FREE_SHIFT: u32 = PID_BITS;

    /// The calling process.
    #[inline]
    #[must_use]
    pub fn own() -> Self {
        // Relaxed: the word says it all, and every thread would write the same.
        match OWN.load(Ordering::Relaxed) {
            0 => Self::find_own(),
            known => Self(known),
        }
    }

    #[cold]
    fn find_own() -> Self {
        // FORK: registers the handler that has a child forget whose word this is.
        let _ = me();
        let pid = super::pid();
        // KERNEL: without /proc, processes are told apart by their numbers alone.
        let began = Stat::of(pid).map_or(0, |stat| stat.began);
        let hidden = !is_at_home();
        let life = Self::of(pid, if hidden { HIDDEN } else { began });
        OWN.store(life.0, Ordering::Relaxed);
        life
    }

    const fn of(pid: i32, began: u64) -> Self {
        Self((began << BEGAN_SHIFT) | (pid as u64 & PID))
    }

    /// What is left of a word when everything else that may be in it is taken away. `None`: no process.
    #[inline]
    #[must_use]
    pub const fn from_word(word: u64) -> Option<Self> {
        if word & PID == 0 { None } else { Some(Self(word & Self::BITS)) }
    }

    /// This life as a word.
    #[inline]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The process id.
    #[must_use]
    pub const fn pid(self) -> i32 {
        (self.0 & PID) as i32
    }

    const fn began(self) -> u64 {
        self.0 >> BEGAN_SHIFT
    }

    /// Whether the process has ended; whoever's child it was, and whether or not anybody has waited for it. A process of
    /// which nothing can be learned is taken for alive.
    #[must_use]
    pub fn is_over(self) -> bool {
        if self == Self::own() || self.began() == HIDDEN {
            return false;
        }
        let Some(pid) = rustix::process::Pid::from_raw(self.pid()) else { return false };
        if rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) {
            return true;
        }
        match Stat::of(self.pid()) {
            Some(stat) => stat.ended || (self.began() != 0 && stat.began != self.began()),
            // KERNEL: /proc may be missing, or hide the processes of others; a descriptor tells of their end all the same.
            None => has_ended(pid),
        }
    }
}

/// FORK: called in a child, before anything else.
pub(super) fn forget() {
    OWN.store(0, Ordering::Relaxed);
}

/// The namespace of process ids that this process counts in; zero where the kernel does not tell.
#[must_use]
pub fn namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self/ns/pid").map_or(0, |space| space.ino())
}

/// Tells this process in which namespace the numbers were written down that it will look at. If it lives in another one,
/// its own number means nothing to the others, and theirs nothing to it: it will not be taken for dead.
pub fn settle_in(home: u64) {
    if NAMESPACE.swap(home, Ordering::Relaxed) != home {
        forget();
    }
}

fn is_at_home() -> bool {
    let here = namespace();
    // The first of a family of processes to ask decides which namespace is theirs.
    match NAMESPACE.compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => true,
        Err(home) => home == here,
    }
}

fn has_ended(pid: rustix::process::Pid) -> bool {
    use std::os::fd::AsFd;
    match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(fd) => matches!(poll::readable(&[fd.as_fd()], Deadline::AT_ONCE, None), Ok(Woken::Ready)),
        Err(error) => error == rustix::io::Errno::SRCH,
    }
}

/// The tick of the clock at which a process began: with the process id, it is nobody else's. `None` if it has ended, reaped or
/// not.
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    Stat::of(pid).filter(|stat| !stat.ended).map(|stat| stat.began)
}

/// What `/proc/PID/stat` tells.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    /// Ended, whether or not somebody has taken its status.
    ended: bool,
    /// The tick of the clock, since the machine began, at which it began; as much of it as fits.
    began: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }
}

/// Where the fields are, counted behind the name.
const STATE: usize = 0;
const THREADS: usize = 17;
const BEGAN: usize = 19;

fn parse(text: &str) -> Option<Stat> {
    let fields: Vec<_> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let threads: u64 = fields.get(THREADS)?.parse().ok()?;
    // The first thread may be gone while others of its process run.
    let ended = matches!(*fields.get(STATE)?, "Z" | "X" | "x") && threads <= 1;
    let ticks: u64 = fields.get(BEGAN)?.parse().ok()?;
    // Zero and the largest number mean something else. Two processes with one number do not begin 497 days apart to the tick.
    Some(Stat { ended, began: (ticks & u64::from(u32::MAX)).clamp(1, HIDDEN - 1) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Forked, PidFd, exit_now, fork};
    use proptest::prelude::*;

    #[test]
    fn a_life_is_told_from_others_and_its_end_is_seen_before_anybody_waits() {
        let own = Life::own();
        assert_eq!(own, Life::own());
        assert_eq!(own.pid(), crate::sys::pid());
        assert!(!own.is_over());
        match fork().unwrap() {
            Forked::Child => exit_now(0),
            Forked::Parent(pid) => {
                let child = PidFd::open(pid).unwrap();
                let began = Stat::of(pid).unwrap().began;
                let life = Life::of(pid, began);
                let fd = child.descriptor().unwrap();
                poll::readable(&[fd], Deadline::Never, None).unwrap();
                assert!(life.is_over(), "ended, not waited for");
                child.wait().unwrap();
                assert!(life.is_over(), "waited for");
            }
        }
    }

    #[test]
    fn a_number_that_is_used_again_is_another_life() {
        let own = Life::own();
        let before = Life::of(own.pid(), own.began() - 1);
        assert_ne!(own, before);
        assert!(before.is_over());
        assert!(!Life::of(own.pid(), HIDDEN).is_over());
        assert!(!Life::of(crate::sys::parent_pid().unwrap_or(1), 0).is_over());
    }

    #[test]
    fn what_else_is_in_a_word_does_not_matter() {
        let own = Life::own();
        assert_eq!(Life::from_word(own.word() | !Life::BITS), Some(own));
        assert_eq!(Life::from_word(!Life::BITS), None);
        assert_eq!(Life::BITS.count_ones(), 54);
    }

    #[test]
    fn the_kernels_text_is_understood() {
        let text = |state, threads| {
            format!("12 (a) b) {state} 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 {threads} 0 4242 7")
        };
        assert_eq!(parse(&text("S", 1)), Some(Stat { ended: false, began: 4242 }));
        assert_eq!(parse(&text("Z", 1)), Some(Stat { ended: true, began: 4242 }));
        assert_eq!(parse(&text("Z", 2)), Some(Stat { ended: false, began: 4242 }));
        assert_eq!(parse("7 (a) S 1"), None);
    }

    #[test]
    fn only_those_who_run_have_a_start_time() {
        assert!(start_time(crate::sys::pid()).is_some());
        assert_eq!(start_time(-1), None);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,300}") {
            let _ = parse(&text);
        }
    }
}
