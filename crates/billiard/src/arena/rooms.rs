//! The house: all rooms in which this process allocates cells. `README.md` tells how it goes together.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::classes::{SMALL, class_of};
use super::room::{CHUNK, Room};
use super::segment::{LINE, Segment};
use super::{CellError, cannot};
use crate::failpoint;
use crate::sys::PerProcess;

/// When so much of a room is free in such pieces, they are merged after all, and what is too much goes back to the system.
const MERGE: usize = 4 << 20;
/// The least size of a room, by floor. Only what is used of it takes memory.
const FIRST: [usize; 2] = [64 << 10, 4 << 20];
const MOST: usize = 1 << 30;
/// Up to this size each room is twice as large as all before it, by floor.
const SOON: [usize; 2] = [1 << 20, 16 << 20];
const PAGE: usize = 4096;
/// Free memory up to this much stays for the next cells; of the rest, whole pages go back to the system.
const KEEP_WARM: u64 = 64 << 20;
/// Once so many rooms were built on a floor, it is kept for what will come when nothing is in use on it.
const MANY: u64 = 16;

/// What a process has of shared memory, in bytes and pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Segments in which this process allocates.
    pub segments: usize,
    /// Cells in use.
    pub cells: usize,
    /// Bytes with memory behind them that are free for the next cells.
    pub warm: u64,
    /// Bytes that wait for their segment to be empty, since a child may still use them.
    pub retired: u64,
}

/// Everything in which this process allocates, and what it has received.
#[derive(Debug, Default)]
pub(super) struct House {
    /// For small cells, and for all others.
    floors: [Vec<Room>; 2],
    /// How many rooms were ever built on each.
    built: [u64; 2],
    /// Segments of others that are mapped here.
    guests: Vec<Weak<Segment>>,
}

static HOUSE: PerProcess<Mutex<House>> = PerProcess::new();

/// What belongs to this process.
// FORK: a child has a house of its own: the parent's may be locked for ever, and its rooms are the parent's to allocate in.
pub(super) fn house() -> MutexGuard<'static, House> {
    HOUSE.get(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

const fn floor_of(len: usize) -> usize {
    (len > SMALL) as usize
}

impl House {
    /// Room for `len` bytes, one of the sizes that there are: where, and whether they are known to be zero.
    pub(super) fn take(&mut self, len: usize) -> Result<(Arc<Segment>, usize, bool), CellError> {
        let floor = floor_of(len);
        if let Some((segment, at)) = self.take_kept(floor, len) {
            return Ok((segment, at, false));
        }
        if let Some(found) = self.take_gap(floor, len, Room::is_warm)? {
            return Ok(found);
        }
        // Having memory put behind more costs so much that what is free in pieces is merged first.
        let rooms = &mut self.floors[floor];
        if rooms.iter().any(|room| room.binned >= len / 8) {
            rooms.iter_mut().for_each(Room::merge);
            if let Some(found) = self.take_gap(floor, len, Room::is_warm)? {
                return Ok(found);
            }
        }
        if let Some(found) = self.take_gap(floor, len, |_, _| true)? {
            return Ok(found);
        }
        self.build(floor, len)?;
        Ok(self.take_gap(floor, len, |_, _| true)?.expect("the room was made large enough"))
    }

    /// A free cell of that size.
    fn take_kept(&mut self, floor: usize, len: usize) -> Option<(Arc<Segment>, usize)> {
        let class = class_of(len)?;
        let find = |room: &mut Room| room.take_kept(class).map(|at| (room.lend(), at));
        self.floors[floor].iter_mut().rev().find_map(find)
    }

    fn take_gap(
        &mut self,
        floor: usize,
        len: usize,
        is_candidate: impl Fn(&Room, usize) -> bool,
    ) -> Result<Option<(Arc<Segment>, usize, bool)>, CellError> {
        for room in self.floors[floor].iter_mut().filter(|room| is_candidate(room, len)) {
            if let Some((at, zero)) = room.take(len).map_err(cannot("make shared memory"))? {
                return Ok(Some((room.lend(), at, zero)));
            }
        }
        Ok(None)
    }

    /// Adds a room in which there is place for `len` bytes. Each is at least an eighth of all on its floor, so that there are
    /// never many: every one costs a descriptor.
    fn build(&mut self, floor: usize, len: usize) -> Result<(), CellError> {
        let least = len.checked_add(LINE).and_then(|least| least.checked_next_multiple_of(PAGE));
        let least = least.ok_or_else(|| cannot("make shared memory")(io::ErrorKind::OutOfMemory.into()))?;
        let all: usize = self.floors[floor].iter().map(|room| room.segment.map.len()).sum();
        let usual = (2 * all).min(SOON[floor]).max(all / 4).next_multiple_of(PAGE).clamp(FIRST[floor], MOST);
        let room = if least > usual / 2 {
            Room::create(least)?
        } else {
            // An address-space limit may not leave room for the usual size.
            Room::create(usual).or_else(|_| Room::create(least))?
        };
        self.floors[floor].push(room);
        self.built[floor] += 1;
        Ok(())
    }

    /// Takes a cell back. One that a child may know is retired. Answers what must be dropped once the house is unlocked.
    pub(super) fn put_back(
        &mut self,
        segment: &Arc<Segment>,
        at: usize,
        len: usize,
        known: bool,
    ) -> Vec<Arc<Segment>> {
        let floor = floor_of(len);
        let few = self.built[floor] < MANY;
        let rooms = &mut self.floors[floor];
        let Some(index) = rooms.iter().rposition(|room| Arc::ptr_eq(&room.segment, segment)) else {
            return Vec::new();
        };
        let room = &mut rooms[index];
        room.live -= 1;
        if known {
            room.retired += len;
        } else {
            room.put_back(at, len);
        }
        failpoint::pass("arena.returned");
        let vacant = room.live == 0;
        let is_alone = room.segment.map.len() < 2 * len;
        if vacant && (room.retired > 0 || (few && is_alone)) {
            return vec![rooms.swap_remove(index).segment];
        }
        if vacant && few && rooms.iter().all(Room::is_vacant) {
            return rooms.drain(..).map(|room| room.segment).collect();
        }
        let room = &mut rooms[index];
        let crumbs = room.binned >= MERGE;
        if crumbs {
            room.merge();
        }
        if !(vacant || crumbs || len >= CHUNK) || self.warm() <= KEEP_WARM {
            return Vec::new();
        }
        let rooms = &mut self.floors[floor];
        if vacant {
            return vec![rooms.swap_remove(index).segment];
        }
        let room = &mut rooms[index];
        if crumbs {
            let large: Vec<_> = room.gaps.iter_warm().filter(|(_, len)| *len >= CHUNK as u64).collect();
            large.into_iter().for_each(|(at, len)| room.cool(at, len));
        } else {
            // It may have been merged with its neighbours; what goes is only itself.
            room.cool(at as u64, len as u64);
        }
        Vec::new()
    }

    fn warm(&self) -> u64 {
        self.floors.iter().flatten().map(Room::warm).sum()
    }

    /// The segment of that file, if this process has mapped it already.
    pub(super) fn known(&mut self, is_it: impl Fn(&Segment) -> bool) -> Option<Arc<Segment>> {
        self.guests.retain(|guest| guest.strong_count() > 0);
        let own = self.floors.iter().flatten().map(|room| Arc::clone(&room.segment));
        own.chain(self.guests.iter().filter_map(Weak::upgrade)).find(|segment| is_it(segment))
    }

    /// Notes a segment of somebody else.
    pub(super) fn welcome(&mut self, segment: &Arc<Segment>) {
        self.guests.push(Arc::downgrade(segment));
    }
}

/// What this process has allocated in shared memory. Others' segments that it has mapped do not count.
#[must_use]
pub fn usage() -> Usage {
    let house = house();
    let mut usage = Usage::default();
    for room in house.floors.iter().flatten() {
        usage.segments += 1;
        usage.cells += room.live;
        usage.warm += room.warm();
        usage.retired += room.retired as u64;
    }
    usage
}

/// Lets go of the segments in which nothing is in use, which are kept for the next cells otherwise.
pub fn trim() {
    let mut vacant = Vec::new();
    let mut house = house();
    for rooms in &mut house.floors {
        vacant.extend(rooms.extract_if(.., |room| room.is_vacant()));
    }
    drop(house);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Cell;
    use crate::sys::{Forked, PidFd, exit_now, fork};
    use proptest::prelude::*;
    use std::sync::atomic::Ordering::SeqCst;

    const MIB: usize = 1 << 20;

    fn blocks() -> u64 {
        let house = house();
        let rooms = house.floors.iter().flatten();
        rooms.map(|room| rustix::fs::fstat(&*room.segment.fd).unwrap().st_blocks as u64 * 512).sum()
    }

    /// What is free in each segment in which this process allocates: its length, and where each gap begins and ends.
    fn free_ranges() -> Vec<(usize, Vec<(usize, usize)>)> {
        let mut house = house();
        let rooms = house.floors.iter_mut().flatten();
        rooms
            .map(|room| {
                room.merge();
                let gaps = room.gaps.iter().map(|(at, len)| (at as usize, (at + len) as usize));
                (room.segment.map.len(), gaps.collect())
            })
            .collect()
    }

    fn child_that_dies() {
        match fork().unwrap() {
            Forked::Child => exit_now(0),
            Forked::Parent(pid) => drop(PidFd::open(pid).unwrap().wait().unwrap()),
        }
    }

    #[test]
    fn a_million_cells_leave_no_more_than_the_reserve() {
        let mut out: Vec<Option<Cell>> = (0..64).map(|_| None).collect();
        let mut seed = 1_u64;
        for _ in 0..1_000_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let (place, power) = ((seed >> 40) as usize % out.len(), (seed >> 50) as usize % 15);
            out[place] = None;
            out[place] = Some(Cell::uncleared((64 << power) - (seed >> 33) as usize % 64).unwrap());
        }
        out.clear();
        let left = usage();
        assert_eq!((left.cells, left.retired), (0, 0));
        assert!(left.warm <= KEEP_WARM, "{left:?}");
        assert!(blocks() <= KEEP_WARM + MIB as u64, "{} bytes are still backed", blocks());
        trim();
        assert_eq!(usage(), Usage::default());
    }

    #[test]
    fn what_is_empty_goes_at_first_and_stays_when_it_is_wanted_again_and_again() {
        drop(Cell::new(64).unwrap());
        assert_eq!(usage(), Usage::default());
        for _ in 0..2 * MANY {
            drop(Cell::new(64).unwrap());
        }
        assert_eq!((usage().segments, house().built[0]), (1, MANY));
        trim();
        assert_eq!(usage(), Usage::default());
    }

    #[test]
    fn large_cells_give_their_memory_back_although_others_of_their_segment_live() {
        // Enough that many fit into one segment.
        let reserve: Vec<_> = (0..200).map(|_| Cell::uncleared(MIB).unwrap()).collect();
        let full = blocks();
        let keep: Vec<_> = reserve.into_iter().step_by(40).collect();
        assert!(usage().warm <= KEEP_WARM + MIB as u64, "{:?}", usage());
        assert!(blocks() <= KEEP_WARM + 8 * MIB as u64, "{} of {full}", blocks());
        let again = Cell::new(3 * MIB).unwrap();
        assert!((0..again.len()).step_by(4096).all(|at| again.word64(at).load(SeqCst) == 0));
        drop(keep);
    }

    #[test]
    fn descriptors_do_not_grow_with_the_number_of_cells() {
        let many: Vec<_> = (0..300).map(|_| Cell::uncleared(MIB).unwrap()).collect();
        assert!(usage().segments <= 40, "{:?}", usage());
        drop(many);
    }

    #[test]
    fn many_small_cells_give_their_memory_back_although_one_of_them_lives() {
        let mut many: Vec<_> = (0..50_000).map(|_| Cell::uncleared(4096).unwrap()).collect();
        let full = blocks();
        many.truncate(1);
        assert!(usage().warm <= KEEP_WARM + 2 * MERGE as u64, "{:?}", usage());
        assert!(full > 200_000_000 && blocks() < full / 2, "{} of {full}", blocks());
    }

    #[test]
    fn small_cells_that_were_freed_make_room_for_another_size() {
        let many: Vec<_> = (0..1000).map(|_| Cell::uncleared(64).unwrap()).collect();
        let before = usage().segments;
        drop(many);
        let fewer: Vec<_> = (0..60).map(|_| Cell::uncleared(1024).unwrap()).collect();
        assert_eq!(usage().segments, before);
        drop(fewer);
    }

    #[test]
    fn what_a_child_may_know_waits_for_the_last_of_its_segment() {
        let (keep, known) = (Cell::new(64).unwrap(), Cell::new(128).unwrap());
        child_that_dies();
        drop(known);
        assert_eq!(usage().retired, 128);
        drop(keep);
        assert_eq!(usage(), Usage::default());
    }

    #[test]
    fn what_is_free_and_what_is_out_tile_a_segment() {
        let cells: Vec<_> =
            [64, 640, 2000, 70_000, 64, MIB].into_iter().map(|len| Cell::new(len).unwrap()).collect();
        let out: usize = cells.iter().map(Cell::len).sum();
        let (mut whole, mut free) = (0, 0);
        for (len, gaps) in free_ranges() {
            assert!(gaps.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{gaps:?}");
            whole += len - LINE;
            free += gaps.iter().map(|(begin, end)| end - begin).sum::<usize>();
        }
        assert_eq!(whole, free + out);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn cells_never_overlap_and_keep_what_they_hold(
            steps in prop::collection::vec((0..24_usize, 1..200_000_usize, any::<bool>()), 1..200)
        ) {
            let mut out: Vec<Option<(Cell, u64)>> = (0..24).map(|_| None).collect();
            for (number, (place, len, clear)) in steps.into_iter().enumerate() {
                let mark = number as u64 + 1;
                let cell = if clear { Cell::new(len) } else { Cell::uncleared(len) }.unwrap();
                prop_assert!(cell.len() >= len && cell.len() < len + len / 4 + LINE);
                for at in (0..cell.len()).step_by(8) {
                    let before = cell.word64(at).swap(mark, SeqCst);
                    prop_assert!(!clear || before == 0);
                }
                out[place] = Some((cell, mark));
                for (cell, mark) in out.iter().flatten() {
                    for at in [0, cell.len() / 2 / 8 * 8, cell.len() - 8] {
                        prop_assert_eq!(cell.word64(at).load(SeqCst), *mark);
                    }
                }
            }
        }
    }
}
