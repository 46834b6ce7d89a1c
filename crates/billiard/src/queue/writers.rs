//! Which processes put into a queue, so that it can be told whether anybody is left who does.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::layout::{AT_WRITERS, WRITERS};
use crate::arena::Mapping;
use crate::sys;

/// Who is left of those who have put something into a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Nobody has put anything yet.
    None,
    /// Some process that has put something still runs, and has not closed the queue; or there were too many to tell.
    Some,
    /// All of them are gone.
    Gone,
}

const fn row(number: usize) -> usize {
    AT_WRITERS + number * 16
}

/// Stands for a process that there was no row for.
const TOO_MANY: u64 = u64::MAX;

/// Whether the process with this number that began at this time still runs.
pub(super) fn is_alive(pid: u64, start: u64) -> bool {
    pid == TOO_MANY || i32::try_from(pid).is_ok_and(|pid| sys::start_time(pid) == Some(start))
}

/// Enters the calling process. Under the lock of those who put.
pub(super) fn enter(map: &Mapping) {
    let own = sys::pid();
    // Without /proc nobody can be told from another process with its number.
    let (pid, start) = sys::start_time(own).map_or((TOO_MANY, 0), |start| (own as u64, start));
    let rows = || (0..WRITERS).map(row);
    // Relaxed: rows only change under the lock.
    let of = |at: usize| (map.word64(at).load(Relaxed), map.word64(at + 8).load(Relaxed));
    if rows().any(|at| of(at) == (pid, start)) {
        return;
    }
    let free = rows().find(|at| of(*at).0 == 0);
    // The row of somebody who is gone is as good, as long as it stays known that there was one.
    let free = free.or_else(|| rows().find(|at| !is_alive(of(*at).0, of(*at).1)));
    let (at, pid) = free.map_or((row(0), TOO_MANY), |at| (at, pid));
    map.word64(at + 8).store(start, Relaxed);
    map.word64(at).store(pid, Release);
}

/// Notes that the calling process will put nothing more. Under the lock of those who put.
pub(super) fn leave(map: &Mapping) {
    let own = sys::pid() as u64;
    for at in (0..WRITERS).map(row) {
        if map.word64(at).load(Relaxed) == own {
            // Nothing has started at this time, so nobody lives there.
            map.word64(at + 8).store(u64::MAX, Release);
        }
    }
}

/// Who is left, not counting the calling process.
pub(super) fn left(map: &Mapping) -> Writers {
    let own = sys::pid() as u64;
    let mut left = Writers::None;
    for at in (0..WRITERS).map(row) {
        let pid = map.word64(at).load(Acquire);
        if pid == 0 || pid == own {
            continue;
        }
        if is_alive(pid, map.word64(at + 8).load(Acquire)) {
            return Writers::Some;
        }
        left = Writers::Gone;
    }
    left
}
