//! Copies that go past the processor's caches.
//!
//! An ordinary copy of much memory reads each line of the target before it overwrites it, and pushes out of the cache what somebody
//! else is copying at the same time. Several megabytes that are on their way to another process are out of the cache before
//! that one comes to them: so nothing is lost when they are written to memory at once, and two thirds of the traffic are saved.

/// From this size on it pays. What is smaller may still be in the cache when it is read.
pub(super) const STREAM: usize = 2 << 20;

/// Copies `len` bytes, past the caches as far as possible. They are written when it returns, for whoever sees a later store.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes, and they do not overlap.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    const LINE: usize = 64;
    const PART: usize = size_of::<__m128i>();
    let head = to.align_offset(LINE).min(len);
    let end = head + (len - head) / LINE * LINE;
    // SAFETY: a part of what the caller vouches for.
    unsafe { std::ptr::copy_nonoverlapping(from, to, head) };
    for line in (head..end).step_by(LINE) {
        for at in [line, line + PART, line + 2 * PART, line + 3 * PART] {
            // SAFETY: `at + PART` is at most `end`, so inside of what the caller vouches for; the load needs no alignment.
            let part = unsafe { _mm_loadu_si128(from.wrapping_add(at).cast()) };
            // SAFETY: as above; `to + line` is the start of a line, so each part of it is aligned.
            unsafe { _mm_stream_si128(to.wrapping_add(at).cast(), part) };
        }
    }
    // SAFETY: the rest of what the caller vouches for.
    unsafe { std::ptr::copy_nonoverlapping(from.wrapping_add(end), to.wrapping_add(end), len - end) };
    // SYNC(arena.stream): no later release store orders such stores; whoever publishes what was copied relies on this fence.
    // SAFETY: needs SSE, which every x86-64 processor has.
    unsafe { _mm_sfence() };
}

/// Copies `len` bytes.
///
/// # Safety
/// `from` is readable and `to` writable for `len` bytes, and they do not overlap.
#[cfg(not(target_arch = "x86_64"))]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: what the caller vouches for.
    unsafe { std::ptr::copy_nonoverlapping(from, to, len) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_byte_arrives_and_no_other_is_touched(
            bytes in prop::collection::vec(any::<u8>(), 0..500), from in 0..70_usize, to in 0..70_usize,
        ) {
            let from = from.min(bytes.len());
            let source = &bytes[from..];
            let mut target = vec![0xa5; to + source.len() + 70];
            let start = target.as_mut_ptr().wrapping_add(to);
            // SAFETY: two vectors, and the target is long enough.
            unsafe { super::copy(source.as_ptr(), start, source.len()) };
            prop_assert_eq!(&target[to..to + source.len()], source);
            target.drain(to..to + source.len());
            prop_assert!(target.iter().all(|byte| *byte == 0xa5));
        }
    }
}
