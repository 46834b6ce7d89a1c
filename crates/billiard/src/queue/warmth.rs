//! Memory that is kept for the next large message, and when it goes back to the system. Whoever gives it back takes it on loan for that
//! time, as if it were for a message: so nobody waits for the kernel meanwhile, and if it is killed a sweep finds it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::time::Duration;

use super::layout::{AT_HEAD, AT_KEPT, AT_PUT, AT_TAIL, MAPPED, Mark, SEGMENT};
use super::loans::{self, Side};
use super::lock::{here, try_lock};
use super::parcel::{Loan, Process};
use super::store::Store;
use crate::failpoint;
use crate::sys::{Moment, now};

/// How long memory is kept for the next large message.
const KEEP: Duration = Duration::from_secs(1);
/// Segments whose memory is kept, until then, in a queue that nobody uses.
const IDLE: u64 = if cfg!(test) { 4 << 20 } else { 32 << 20 } / SEGMENT;

/// Notes that memory is kept from now on.
pub(super) fn note(store: &Store) {
    // Relaxed: nothing hangs on when it is noticed.
    store.map.word64(AT_KEPT).store(now().0, Relaxed);
}

/// Gives memory back that was kept for large messages which do not come. If it is not time yet, tells when it will be. Whoever calls this
/// has no lock of the queue.
#[inline]
pub(super) fn cool(store: &Arc<Store>, process: Process) -> io::Result<Option<Moment>> {
    // Relaxed: as above.
    let kept = store.map.word64(AT_KEPT).load(Relaxed);
    if kept == 0 {
        return Ok(None);
    }
    let at = Moment(kept).after(KEEP);
    if now() < at {
        return Ok(Some(at));
    }
    give_back(store, process, 0)?;
    // Relaxed: as above. There may have been another large message meanwhile.
    let _ = store.map.word64(AT_KEPT).compare_exchange(kept, 0, AcqRel, Relaxed);
    Ok(None)
}

/// Gives back what a queue does not need for which there is no message, and nobody writes one: else it would stay, if nobody ever came
/// again. Whoever calls this has no lock of the queue.
pub(super) fn settle(store: &Arc<Store>, process: Process) -> io::Result<()> {
    // Relaxed: a guess. Whoever puts something now takes what is there, or finds a little less.
    let count = |at: usize| Mark::unpack(store.map.word64(at).load(Relaxed)).count;
    if count(AT_HEAD) == count(AT_TAIL) && loans::are_none(&store.map, Side::Put) {
        give_back(store, process, IDLE)?;
    }
    Ok(())
}

#[cold]
fn give_back(store: &Arc<Store>, process: Process, stay: u64) -> io::Result<()> {
    while store.kept() > stay {
        // Whoever has the lock puts something, and sees to it in its turn.
        let Some(held) = try_lock(store.map.block(AT_PUT), here()?, false) else { return Ok(()) };
        let Some(row) = store.take_kept(stay) else { return Ok(()) };
        failpoint::pass("queue_cold_taken");
        let loan = Loan::enter(store, Side::Put, process, row);
        if loan.is_none() {
            store.let_go(row);
        }
        drop(held);
        let Some(loan) = loan else { return Ok(()) };
        failpoint::pass("queue_cooling");
        loan.end_cold()?;
    }
    Ok(())
}

const _: () = assert!(IDLE < MAPPED / SEGMENT);
