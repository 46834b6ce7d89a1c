//! The background thread: one sleep for doorbells, exits and deadlines together.

use std::io;
use std::sync::Arc;

use super::super::scheduler::WorkerId;
use super::{Core, Event, Inner};
use crate::sys::{now, thread};

pub(super) const BELL: u64 = 0;
pub(super) const TIMER: u64 = 1;
const EXIT: u64 = 1 << 63;

pub(super) const fn exit_token(id: WorkerId) -> u64 {
    EXIT | ((id.generation as u64) << 31 & !EXIT & !0x7fff_ffff) | (id.seat as u64 & 0x7fff_ffff)
}

const fn exited(token: u64) -> WorkerId {
    WorkerId { seat: (token & 0x7fff_ffff) as u32, generation: ((token & !EXIT) >> 31) as u32 }
}

const STACK: usize = 256 * 1024;

pub(super) fn start(inner: Arc<Inner>) -> io::Result<()> {
    thread::spawn("billiard-pool", STACK, move || run(&inner)).map(drop)
}

fn run(inner: &Inner) {
    loop {
        if let Ok(mut core) = inner.enter()
            && look(inner, &mut core)
        {
            return;
        }
        let mut tokens = Vec::new();
        if inner.poller.wait(&mut tokens).is_err() {
            continue;
        }
        let Ok(mut core) = inner.enter() else { return };
        heed(inner, &mut core, &tokens);
    }
}

/// What was watched has something to say.
pub(super) fn heed(inner: &Inner, core: &mut Core, tokens: &[u64]) {
    for token in tokens {
        match *token {
            BELL => inner.hub.background.clear(),
            TIMER => {
                core.timer = None;
                inner.timer.clear();
            }
            token => bury(inner, core, exited(token)),
        }
    }
}

/// A worker has ended. Its descriptor is taken out of the set by name: a forked sibling may hold a copy of it.
fn bury(inner: &Inner, core: &mut Core, id: WorkerId) {
    let child = core.desks.get(id).map(|desk| Arc::clone(&desk.child));
    if core.look_after(id)
        && let Some(fd) = child.as_ref().and_then(|c| c.sentinel())
    {
        let _ = inner.poller.remove(fd);
    }
}

/// One look at everything. Whether the pool is over.
pub(super) fn look(inner: &Inner, core: &mut Core) -> bool {
    let taken = core.turn();
    let time = now();
    if core.scheduler.next_deadline().is_some_and(|at| at <= time) {
        let Core { scheduler, desks, .. } = core;
        scheduler.tick(time, desks);
        core.carry_out();
    }
    core.desks.tend(time);
    bury_unwatched(inner, core);
    // While much is going on, a regular look costs less than a bell for every message. An owner who drives the engine has
    // other things to do between two looks, and they are enough.
    core.polling = !core.driven && (taken > 0 || (core.polling && core.active));
    core.active = false;
    if !core.led {
        inner.stand_down(core);
    }
    if !core.ended.is_empty() && !core.polling {
        core.events.push_back(Event::Ended);
    }
    inner.after(core);
    core.check_over()
}

/// KERNEL: where there are no process descriptors, exits are found by looking.
fn bury_unwatched(inner: &Inner, core: &mut Core) {
    let blind: Vec<_> = core.desks.iter().filter(|d| d.blind).map(|d| d.seat.id()).collect();
    if !blind.is_empty() {
        for id in blind {
            bury(inner, core, id);
        }
        core.polling = true;
    }
}
