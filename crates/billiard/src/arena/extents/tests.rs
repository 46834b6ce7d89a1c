use super::*;
use crate::sys::Deadline;
use crate::sys::poll::readable;

fn area() -> Arc<Area> {
    let (fd, span) = descriptor(0).expect("memfd");
    Arc::new(Area::new(fd, 0, span))
}

#[test]
fn what_is_written_is_read_and_the_memory_comes_back() {
    let area = area();
    let mut owner = Allocator::new(Arc::clone(&area));
    for round in 0..100u8 {
        let extent = owner.allocate(10_000).unwrap().unwrap();
        owner.fill(&extent, 5, &[round; 100]);
        let lease = area.lease(extent).unwrap().unwrap();
        let mut bytes = Vec::new();
        lease.read_to(5, 100, &mut bytes);
        assert_eq!(bytes, [round; 100]);
    }
    owner.collect().unwrap();
    assert_eq!(owner.in_use(), 0);
    assert_eq!(owner.gaps.iter().count(), 2, "all warm memory lies together again");
}

#[test]
fn nonsense_is_not_leased() {
    let area = area();
    for extent in [
        Extent { slot: SLOTS, offset: DATA, len: 1 },
        Extent { slot: 0, offset: 0, len: 1 },
        Extent { slot: 0, offset: DATA, len: u64::MAX },
        Extent { slot: 0, offset: u64::MAX, len: 2 },
    ] {
        assert!(area.lease(extent).unwrap().is_none());
    }
}

#[test]
fn more_than_the_warm_reserve_goes_back_to_the_system() {
    let area = area();
    let mut owner = Allocator::new(Arc::clone(&area));
    let blocks = || rustix::fs::fstat(&area.fd).unwrap().st_blocks as u64 * 512;
    let many: Vec<_> = (0..10).map(|_| owner.allocate(16 << 20).unwrap().unwrap()).collect();
    let kept = owner.allocate(1 << 20).unwrap().unwrap();
    assert_eq!(owner.tend().unwrap(), owner.look, "what is out may be released without a word");
    for extent in many {
        drop(area.lease(extent).unwrap());
    }
    let start = now();
    let next = owner.tend().unwrap().unwrap();
    assert!(next <= now().after(WHILE) && next >= start.after(WHILE), "it stays for a while");
    assert!(blocks() > 160 << 20);
    readable(&[], Deadline::At(next), None).unwrap();
    let mut turns = 0;
    while owner.gaps.warm() > KEEP_WARM {
        assert!(owner.tend().unwrap().is_some());
        turns += 1;
    }
    assert!(turns >= 5, "a little at a time, and not in {turns} turns");
    assert!(blocks() <= KEEP_WARM + (1 << 20) + DATA + PAGE, "{} bytes are still backed", blocks());
    let again = owner.allocate(100 << 20).unwrap().unwrap();
    owner.fill(&again, (100 << 20) - 3, b"end");
    owner.reclaim(again.slot).unwrap();
    owner.reclaim(kept.slot).unwrap();
    assert_eq!(owner.in_use(), 0);
}

#[test]
fn what_stays_out_is_looked_at_less_and_less() {
    let area = area();
    let mut owner = Allocator::new(Arc::clone(&area));
    assert_eq!(owner.tend().unwrap(), None);
    let extent = owner.allocate(WORTH_A_LOOK).unwrap().unwrap();
    let mut waits = Vec::new();
    for _ in 0..9 {
        let start = now();
        let next = owner.tend().unwrap().unwrap();
        waits.push(next.since(start).as_secs());
        // As if it were time.
        owner.look = Some(start);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
    drop(area.lease(extent).unwrap());
    owner.tend().unwrap();
    assert_eq!((owner.look, owner.in_use()), (None, 0));
}

#[test]
fn offsets_beyond_four_gibibytes_are_kept_apart() {
    let area = area();
    assert!(area.span > 8 << 30, "there is address space for it here");
    let mut owner = Allocator::new(Arc::clone(&area));
    // As if five were out already: no test needs so much memory.
    owner.gaps = Gaps::over(5 << 30, area.span - (5 << 30));
    let extent = owner.allocate(10_000).unwrap().unwrap();
    assert_eq!(extent.offset, 5 << 30);
    owner.fill(&extent, 9_000, b"far");
    let lease = area.lease(extent).unwrap().unwrap();
    let mut bytes = Vec::new();
    lease.read_to(9_000, 3, &mut bytes);
    assert_eq!(bytes, b"far");
    let large = Extent { slot: 1, offset: 6 << 30, len: 5 << 30 };
    assert_eq!(area.lease(large).unwrap().unwrap().into_extent().len, 5 << 30);
    assert!(area.lease(Extent { len: area.span, ..large }).unwrap().is_none());
}

#[test]
fn modesty_leaves_room_for_others() {
    let area = area();
    let mut owner = Allocator::new(Arc::clone(&area));
    let mut out = Vec::new();
    while let Some(extent) = owner.allocate_modestly(1).unwrap() {
        out.push(extent);
    }
    assert_eq!(out.len(), SLOTS as usize / 2);
    assert!(owner.allocate(1).unwrap().is_some());
    for extent in out.drain(..200) {
        drop(area.lease(extent).unwrap().unwrap());
    }
    assert!(owner.allocate_modestly(1).unwrap().is_some(), "what was released is found again");
}

#[test]
fn the_last_released_extent_is_found_when_nothing_else_is_left() {
    let area = area();
    let mut owner = Allocator::new(Arc::clone(&area));
    let out: Vec<_> = std::iter::from_fn(|| owner.allocate(1).unwrap()).collect();
    drop(area.lease(out[5]).unwrap().unwrap());
    assert_eq!(owner.allocate(1).unwrap().map(|e| e.slot), Some(5));
    assert_eq!(owner.in_use(), u64::from(SLOTS) * PAGE);
}

#[test]
fn slots_run_out_politely() {
    let area = area();
    let mut owner = Allocator::new(area);
    let mut out = Vec::new();
    while let Some(extent) = owner.allocate(1).unwrap() {
        out.push(extent);
    }
    assert_eq!(out.len(), SLOTS as usize);
    owner.reclaim(out[7].slot).unwrap();
    assert_eq!(owner.allocate(1).unwrap().map(|e| e.slot), Some(out[7].slot));
}
