//! Extents: room for large messages in a sparse shared area. One process allocates; whoever holds an extent releases it by
//! setting one word, so that no lock is shared and a dead holder's extents are simply taken back.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Mapping;
use super::gaps::Gaps;
use crate::failpoint;
use crate::sys::{Identity, Moment, me, memfd, now};

const PAGE: u64 = 4096;
/// How many extents may be out at once.
const SLOTS: u32 = 16_384;
const TABLE: u64 = SLOTS as u64 * 4;
/// Counts releases, so that the allocator looks for released extents only when there are some. Last word of the header.
const RELEASES: usize = TABLE as usize;
const DATA: u64 = TABLE + PAGE;
/// Freed memory up to this much stays warm for the next message, as long as the area lives.
const KEEP_WARM: u64 = 16 << 20;
/// Up to this much stays for a while, since fresh memory costs more than what is copied into it; the rest goes back to the system at once.
const KEEP_AWHILE: u64 = 1 << 30;
const WHILE: Duration = Duration::from_secs(1);
/// So much is given back at a time: nobody waits longer than that takes.
const AT_A_TIME: u64 = 32 << 20;
/// When there is more to give back.
const SOON: Duration = Duration::from_millis(1);
/// Extents of so much altogether are worth a look whether they were released. The next look takes twice as long to come each time.
const WORTH_A_LOOK: u64 = 1 << 20;
const LONGEST: Duration = Duration::from_secs(64);

const FREE: u32 = 0;
const HELD: u32 = 1;
const RELEASED: u32 = 2;

/// A sparse shared area. It is mapped when it is first used, so that a pool of small messages never pays for it.
#[derive(Debug)]
pub struct Area {
    fd: Arc<OwnedFd>,
    base: u64,
    span: u64,
    map: OnceLock<Mapping>,
}

impl Area {
    /// How much address space an area takes. Memory is only used for what is allocated in it.
    pub const SPAN: u64 = 1 << 36;

    /// The part of `fd` from `base` (a multiple of the page size) on, `span` bytes long.
    #[must_use]
    pub const fn new(fd: Arc<OwnedFd>, base: u64, span: u64) -> Self {
        Self { fd, base, span, map: OnceLock::new() }
    }

    fn map(&self) -> io::Result<&Mapping> {
        if let Some(map) = self.map.get() {
            return Ok(map);
        }
        let map = Mapping::new(&self.fd, self.base, self.span as usize)?;
        Ok(self.map.get_or_init(|| map))
    }

    /// Maps the area now rather than when it is first used.
    pub fn prepare(&self) -> io::Result<()> {
        self.map().map(drop)
    }

    /// Takes charge of an extent that the allocating process has announced. `None` if the announcement makes no sense.
    pub fn lease(self: &Arc<Self>, extent: Extent) -> io::Result<Option<Lease>> {
        let inside = extent.offset >= DATA
            && extent.offset.checked_add(extent.len).is_some_and(|end| end <= self.span)
            && extent.slot < SLOTS;
        if !inside {
            return Ok(None);
        }
        self.map()?;
        Ok(Some(Lease { area: Arc::clone(self), extent, owner: me(), duty: true }))
    }

    fn mapped(&self) -> &Mapping {
        self.map.get().expect("whoever holds an extent has mapped the area")
    }
}

/// A piece of an area, as it is named in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its row in the table of states.
    pub slot: u32,
    /// Where it begins.
    pub offset: u64,
    /// How many bytes were asked for.
    pub len: u64,
}

/// An extent in the hands of its reader. Dropping it gives the memory back.
#[derive(Debug)]
pub struct Lease {
    area: Arc<Area>,
    extent: Extent,
    owner: Identity,
    duty: bool,
}

impl Lease {
    /// How many bytes it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.extent.len as usize
    }

    /// Whether it holds nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.extent.len == 0
    }

    /// Whether it lies in the upper half of its area, which is used once the lower half is full.
    #[must_use]
    pub fn lies_high(&self) -> bool {
        self.extent.offset + self.extent.len > self.area.span / 2
    }

    /// The extent, to be named in a message; releasing it is the reader's duty from now on.
    #[must_use]
    pub fn into_extent(mut self) -> Extent {
        self.duty = false;
        self.extent
    }

    /// Copies a range out.
    pub fn read_to(&self, offset: usize, len: usize, into: &mut Vec<u8>) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len()), "range outside of the extent");
        self.area.mapped().read_to(self.extent.offset as usize + offset, len, into);
    }

    /// Where a range lies in this process, valid while the lease lives.
    #[must_use]
    pub fn pointer(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len()), "range outside of the extent");
        self.area.mapped().pointer(self.extent.offset as usize + offset, len)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // FORK: a child's copy of the lease is not the lease; the memory belongs to the parent's.
        if !self.duty || !self.owner.is_me() {
            return;
        }
        let map = self.area.mapped();
        // SYNC(extent.release): everything read from the extent happens before this store; the allocator's Acquire load
        // sees it before it uses the memory again.
        map.word32(self.extent.slot as usize * 4).store(RELEASED, Release);
        failpoint::pass("released");
        map.word32(RELEASES).fetch_add(1, AcqRel);
    }
}

#[derive(Clone, Copy, Debug)]
struct Live {
    offset: u64,
    len: u64,
    /// Who will release it, if that is not the allocating process itself.
    holder: Option<u32>,
}

/// The allocating side of an area; exactly one process has it.
#[derive(Debug)]
pub struct Allocator {
    area: Arc<Area>,
    gaps: Gaps,
    live: BTreeMap<u32, Live>,
    spare_slots: Vec<u32>,
    next_slot: u32,
    releases_seen: u32,
    /// Bytes that are out.
    out: u64,
    /// When memory was last freed.
    freed: Moment,
    /// How long the next look at what is out is to wait, and when it comes.
    patience: Duration,
    look: Option<Moment>,
}

impl Allocator {
    /// The allocator of an area that nobody has allocated in.
    #[must_use]
    pub fn new(area: Arc<Area>) -> Self {
        let gaps = Gaps::over(DATA, area.span - DATA);
        Self {
            area,
            gaps,
            live: BTreeMap::new(),
            spare_slots: Vec::new(),
            next_slot: 0,
            releases_seen: 0,
            out: 0,
            freed: Moment(0),
            patience: WHILE,
            look: None,
        }
    }

    /// Takes back what was released, and gives memory back to the system that nobody has needed for a while. Tells when there will be
    /// something to do again; `None`: not before the next extent is allocated or released. Whoever has the allocator calls this when
    /// there is nothing else to do, and at that time.
    pub fn tend(&mut self) -> io::Result<Option<Moment>> {
        let time = now();
        let out = self.out;
        self.collect()?;
        if self.out < WORTH_A_LOOK {
            (self.look, self.patience) = (None, WHILE);
        } else if self.out < out || self.look.is_none() {
            (self.look, self.patience) = (Some(time.after(WHILE)), WHILE);
        } else if self.look.is_some_and(|at| at <= time) {
            self.patience = (self.patience * 2).min(LONGEST);
            self.look = Some(time.after(self.patience));
        }
        if self.gaps.warm() <= KEEP_WARM {
            return Ok(self.look);
        }
        let cools = self.freed.after(WHILE);
        if time < cools {
            return Ok(Some(self.look.map_or(cools, |look| look.min(cools))));
        }
        self.cool()?;
        Ok(if self.gaps.warm() > KEEP_WARM { Some(time.after(SOON)) } else { self.look })
    }

    /// Gives some warm memory back to the system, from the end.
    fn cool(&mut self) -> io::Result<()> {
        let Some((offset, len)) = self.gaps.last_warm() else { return Ok(()) };
        let most = (self.gaps.warm() - KEEP_WARM).min(AT_A_TIME).next_multiple_of(PAGE);
        let cold = len.min(most);
        let end = offset + len - cold;
        memfd::release(&self.area.fd, self.area.base + end, cold)?;
        self.gaps.carve(end, cold);
        self.gaps.put_back(end, cold, false);
        Ok(())
    }

    /// Bytes that are out, in whole pages.
    #[must_use]
    pub const fn in_use(&self) -> u64 {
        self.out
    }

    /// Whether half of the area or of the table is out, as far as it is known without a look at every extent.
    fn is_half_full(&self) -> bool {
        self.live.len() >= SLOTS as usize / 2 || self.out >= self.area.span / 2
    }

    /// Like [`Allocator::allocate`], but leaves half of everything to others.
    pub fn allocate_modestly(&mut self, len: u64) -> io::Result<Option<Extent>> {
        if self.is_half_full() {
            self.collect_if_more_than(self.live.len() as u32 / 64)?;
            if self.is_half_full() {
                return Ok(None);
            }
        }
        self.allocate(len)
    }

    /// Finds room for `len` bytes. `None`: the area or the table is full.
    pub fn allocate(&mut self, len: u64) -> io::Result<Option<Extent>> {
        // Collecting looks at every extent that is out, so it waits until there is something in proportion to gain.
        self.collect_if_more_than(self.live.len() as u32 / 64)?;
        if let Some(extent) = self.find(len)? {
            return Ok(Some(extent));
        }
        self.collect()?;
        self.find(len)
    }

    fn find(&mut self, len: u64) -> io::Result<Option<Extent>> {
        let Some(pages) = len.max(1).checked_next_multiple_of(PAGE) else { return Ok(None) };
        let slot = match self.spare_slots.pop() {
            Some(slot) => slot,
            None if self.next_slot < SLOTS => {
                if self.next_slot == 0 {
                    memfd::back(&self.area.fd, self.area.base, DATA)?;
                    self.area.map()?;
                }
                self.next_slot += 1;
                self.next_slot - 1
            }
            None => return Ok(None),
        };
        let Some((offset, backed)) = self.gaps.take(pages) else {
            self.spare_slots.push(slot);
            return Ok(None);
        };
        if !backed {
            if let Err(error) = memfd::back(&self.area.fd, self.area.base + offset, pages) {
                self.gaps.put_back(offset, pages, false);
                self.spare_slots.push(slot);
                return Err(error);
            }
            self.area.map()?.populate(offset as usize, pages as usize);
        }
        self.live.insert(slot, Live { offset, len: pages, holder: None });
        self.out += pages;
        self.area.map()?.word32(slot as usize * 4).store(HELD, Release);
        Ok(Some(Extent { slot, offset, len }))
    }

    /// Copies bytes into an extent.
    pub fn fill(&self, extent: &Extent, at: u64, bytes: &[u8]) {
        assert!(at + bytes.len() as u64 <= extent.len, "write outside of the extent");
        self.area.mapped().write((extent.offset + at) as usize, bytes);
    }

    /// Where a range of an extent lies in this process, to be written by a copy from foreign memory.
    #[must_use]
    pub fn pointer(&self, extent: &Extent, at: usize, len: usize) -> *mut u8 {
        let inside = at.checked_add(len).is_some_and(|end| end as u64 <= extent.len);
        assert!(inside, "write outside of the extent");
        self.area.mapped().pointer(extent.offset as usize + at, len)
    }

    /// Takes an extent back whose holder will never release it: it was not sent, or its holder died.
    pub fn reclaim(&mut self, slot: u32) -> io::Result<()> {
        if let Some(Live { offset, len, .. }) = self.live.remove(&slot) {
            self.out -= len;
            self.area.map()?.word32(slot as usize * 4).store(FREE, Release);
            self.spare_slots.push(slot);
            self.put_back(offset, len)?;
        }
        Ok(())
    }

    /// Notes who will release an extent.
    pub fn entrust(&mut self, slot: u32, holder: Option<u32>) {
        if let Some(live) = self.live.get_mut(&slot) {
            live.holder = holder;
        }
    }

    /// Takes back whatever a dead holder had not released.
    pub fn inherit(&mut self, holder: u32) -> io::Result<()> {
        self.collect()?;
        let left: Vec<u32> =
            self.live.iter().filter(|(_, live)| live.holder == Some(holder)).map(|(slot, _)| *slot).collect();
        left.into_iter().try_for_each(|slot| self.reclaim(slot))
    }

    /// Takes back what was released since the last look.
    pub fn collect(&mut self) -> io::Result<()> {
        self.collect_if_more_than(0)
    }

    fn collect_if_more_than(&mut self, few: u32) -> io::Result<()> {
        if self.live.is_empty() {
            return Ok(());
        }
        let map = self.area.map()?;
        let releases = map.word32(RELEASES).load(Acquire);
        if releases.wrapping_sub(self.releases_seen) <= few {
            return Ok(());
        }
        self.releases_seen = releases;
        // SYNC(extent.release): pairs with the store in `Lease::drop`.
        let free: Vec<u32> = self
            .live
            .keys()
            .copied()
            .filter(|slot| map.word32(*slot as usize * 4).load(Acquire) == RELEASED)
            .collect();
        for slot in free {
            self.reclaim(slot)?;
        }
        Ok(())
    }

    fn put_back(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let backed = self.gaps.warm() + len <= KEEP_AWHILE;
        if backed {
            self.freed = now();
        } else {
            memfd::release(&self.area.fd, self.area.base + offset, len)?;
        }
        self.gaps.put_back(offset, len, backed);
        Ok(())
    }
}

/// Makes a descriptor that holds an area behind `head` bytes of something else.
pub(crate) fn descriptor(head: u64) -> io::Result<(Arc<OwnedFd>, u64)> {
    // An address-space limit may not leave room for the usual span.
    let mut last = None;
    for span in [Area::SPAN, 1 << 32, 1 << 28] {
        let made = memfd::create(head + span, head).and_then(|fd| {
            Mapping::new(fd.as_fd(), head, span as usize)?;
            Ok((Arc::new(fd), span))
        });
        match made {
            Ok(made) => return Ok(made),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("at least one span was tried"))
}

#[cfg(test)]
mod tests;
