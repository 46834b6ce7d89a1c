//! Memory that has never been touched costs more than what is copied into it: the kernel stops whoever writes to it at every
//! page of 4 KiB. Asked beforehand, it puts memory behind all of it at once, where it can in pieces of 2 MiB.

use super::stream::Room;

/// A huge page, where there are some of this size; elsewhere asking for it has no effect.
const HUGE: usize = 2 << 20;

/// Has private memory put behind a room that is about to be filled, if it is large. What is there already stays as it is.
///
/// It is a favour: where the kernel refuses, filling the room is slower, and right all the same.
pub(crate) fn prepare(room: &Room<'_>) {
    if room.left() >= HUGE {
        // KERNEL: transparent huge pages may be turned off or not compiled in; EINVAL then.
        advise(room, HUGE, libc::MADV_HUGEPAGE);
        // KERNEL: MADV_POPULATE_WRITE since 5.14; EINVAL before, and pages come at the first touch.
        advise(room, rustix::param::page_size(), libc::MADV_POPULATE_WRITE);
    }
}

/// Has a large room of shared memory, which has memory behind it, mapped at once.
pub(crate) fn populate(room: &Room<'_>) {
    if room.left() >= HUGE {
        // KERNEL: MADV_POPULATE_READ since 5.14; EINVAL before, and pages come at the first touch. What is mapped shared for reading
        // is mapped for writing too, and many pages at a time, as for writing they would not be.
        advise(room, rustix::param::page_size(), libc::MADV_POPULATE_READ);
    }
}

/// The whole pages of some size in a range: how far behind its start, and how many bytes.
fn inside(start: usize, len: usize, page: usize) -> Option<(usize, usize)> {
    let first = start.checked_next_multiple_of(page)?;
    let end = start.checked_add(len)? / page * page;
    (first < end).then(|| (first - start, end - first))
}

/// Gives an advice about the whole pages of some size in the room.
fn advise(room: &Room<'_>, page: usize, advice: libc::c_int) {
    if let Some((from, len)) = inside(room.start() as usize, room.left(), page) {
        // SAFETY: whole pages inside of the room, which is writable memory by its invariant; neither advice changes what is in
        // them. That it was refused makes no difference to anybody.
        unsafe { libc::madvise(room.start().wrapping_add(from).cast(), len, advice) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many pages of a vector have memory behind them, of those that it has for itself.
    fn resident(bytes: &[u8]) -> usize {
        let (from, len) = inside(bytes.as_ptr() as usize, bytes.len(), 4096).unwrap();
        let mut pages = vec![0; len.div_ceil(4096)];
        let start = bytes.as_ptr().wrapping_add(from).cast_mut();
        // SAFETY: whole pages of a vector, and a byte for each.
        let rc = unsafe { libc::mincore(start.cast(), len, pages.as_mut_ptr()) };
        assert_eq!(rc, 0);
        pages.iter().filter(|page| **page & 1 == 1).count()
    }

    #[test]
    fn whole_pages_are_found() {
        assert_eq!(inside(4096, 8192, 4096), Some((0, 8192)));
        assert_eq!(inside(4097, 8192, 4096), Some((4095, 4096)));
        assert_eq!(inside(4097, 8190, 4096), None);
        assert_eq!(inside(4097, 4096, 4096), None);
        assert_eq!(inside(usize::MAX - 10, 10, 4096), None);
        assert_eq!(inside(4096, usize::MAX, 4096), None);
    }

    #[test]
    fn a_large_room_has_memory_behind_it_and_keeps_what_it_holds() {
        // Zeros that nobody has touched.
        let mut bytes = vec![0; 5 * HUGE];
        bytes[HUGE..HUGE + 3].copy_from_slice(b"old");
        let before = resident(&bytes);
        prepare(&Room::of(&mut bytes[100..4 * HUGE + 100]));
        assert_eq!(&bytes[HUGE..HUGE + 3], b"old");
        let after = resident(&bytes);
        // KERNEL: before 5.14 only the advice for huge pages is taken, which puts nothing there.
        assert!(after == before || after >= 4 * HUGE / 4096 - 2, "{before}, {after}");
    }

    #[test]
    fn a_small_room_is_left_alone() {
        let mut bytes = vec![0; 5 * HUGE];
        let before = resident(&bytes);
        prepare(&Room::of(&mut bytes[..HUGE - 1]));
        assert_eq!(resident(&bytes), before);
    }
}
