//! Words in shared memory whose owner's death the kernel announces, at once and by itself.
//!
//! KERNEL: every thread has a *robust list* (since 2.6.17; the C library registers it), a chain of words that the thread may
//! own, and one more that it is about to take or has just given up, the *pending* one. When the thread ends, however it ends,
//! the kernel looks at each of them. A word that holds the thread's number gets the mark [`DIED`] in its place, and one of
//! its sleepers is woken if it says that there are [`WAITERS`]. If the pending word is nobody's, one of its sleepers is woken too
//! (since 5.5 if it is zero, since 6.1 also if it was marked): whoever was woken before may have been this thread, which dies
//! without having passed it on.
//!
//! The chain is the C library's, for its own robust mutexes. What we put in front of it is gone again before the library can
//! look, since a thread is only in one of our critical sections at a time, and calls nobody there.

use std::cell::Cell;
use std::io;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};

use super::ident::{Identity, me};

/// Somebody sleeps on the word.
pub(crate) const WAITERS: u32 = 0x8000_0000;
/// The owner has died. Ours to use while there is one: the kernel only looks at the rest.
pub(crate) const DIED: u32 = 0x4000_0000;
/// The thread that owns the word; zero for none.
pub(crate) const OWNER: u32 = 0x3fff_ffff;

/// One such word, with the room around it in which the chain's pointer lies. Where exactly the C library says.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Block {
    before: [AtomicU64; 8],
    word: AtomicU32,
    _unused: AtomicU32,
    after: [AtomicU64; 7],
}

const _: () = assert!(size_of::<Block>() == 128);
const WORD_AT: isize = 64;

impl Block {
    /// The word.
    #[inline(always)]
    pub(crate) const fn word(&self) -> &AtomicU32 {
        &self.word
    }

    fn entry(&self, here: Here) -> usize {
        here.entry(&self.word)
    }

    /// Where the chain's pointer to the next entry lies.
    fn next(&self, here: Here) -> &AtomicU64 {
        let at = (WORD_AT - here.offset) as usize;
        if at < WORD_AT as usize {
            &self.before[at / 8]
        } else {
            &self.after[(at - WORD_AT as usize) / 8 - 1]
        }
    }
}

/// The kernel's `struct robust_list_head`.
#[repr(C)]
struct Head {
    first: AtomicUsize,
    offset: isize,
    pending: AtomicUsize,
}

/// The calling thread, to the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here {
    head: *const Head,
    /// From a chain entry to its word.
    offset: isize,
    tid: u32,
}

thread_local! {
    // FORK: the thread that forks keeps its place in memory and gets another number, so the generation is kept with it.
    static HERE: Cell<Option<(Identity, Here)>> = const { Cell::new(None) };
}

/// The calling thread.
///
/// # Errors
/// `Unsupported` if the C library has not registered a list, or lays it out in a way that we cannot share.
#[inline]
pub(crate) fn here() -> io::Result<Here> {
    match HERE.get() {
        Some((generation, here)) if generation.is_me() => Ok(here),
        _ => ask(),
    }
}

#[cold]
fn ask() -> io::Result<Here> {
    let mut head: *const Head = std::ptr::null();
    let mut size = 0usize;
    // SAFETY: the kernel writes one pointer and one size, and both places are valid.
    let rc = unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut size) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    if head.is_null() || size != size_of::<Head>() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: the list of the calling thread, which the C library keeps as long as the thread runs.
    let offset = unsafe { (*head).offset };
    let at = WORD_AT - offset;
    if at % 8 != 0 || !(0..=120).contains(&at) || at == WORD_AT {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let tid = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
    let here = Here { head, offset, tid };
    HERE.set(Some((me(), here)));
    Ok(here)
}

/// What stood at the front of the chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain(usize);

impl Here {
    /// The thread's number, as it stands in words that it owns.
    #[inline(always)]
    pub(crate) const fn tid(self) -> u32 {
        self.tid
    }

    #[inline(always)]
    fn head(&self) -> &Head {
        // SAFETY: it lives as long as the thread, and a `Here` does not leave its thread (it holds a raw pointer).
        unsafe { &*self.head }
    }

    /// The place in the chain that belongs to a word.
    fn entry(self, word: &AtomicU32) -> usize {
        (std::ptr::from_ref(word) as usize).wrapping_add_signed(-self.offset)
    }

    /// Says that the thread is about to take, or to give up, or to sleep on this word.
    #[inline(always)]
    pub(crate) fn announce(self, block: &Block) {
        self.announce_word(&block.word);
    }

    /// The same of a word that is never put into the chain, so that it needs no room around it. It must stay mapped until
    /// the announcement is taken back.
    // Release: what was done before is done when the thread dies after this store; the kernel looks at memory as this thread
    // has left it, so only the compiler has to be kept from reordering.
    #[inline(always)]
    pub(crate) fn announce_word(self, word: &AtomicU32) {
        self.head().pending.store(self.entry(word), Release);
    }

    /// Takes the announcement back.
    #[inline(always)]
    pub(crate) fn retract(self) {
        self.head().pending.store(0, Release);
    }

    /// Puts a word that the thread owns in front of the chain. It must be out of the chain before it is given up: the next
    /// owner's pointer takes the place of this one's, and a chain that the kernel cannot follow hides the pending word too.
    pub(crate) fn keep(self, block: &Block) {
        // Relaxed: read by this thread, or by the kernel on its behalf.
        let first = self.head().first.load(Relaxed);
        block.next(self).store(first as u64, Release);
        self.head().first.store(block.entry(self), Release);
    }

    /// Lets `chain` follow a word that is first in the chain: what was between them is out of it with one store.
    pub(crate) fn link(self, block: &Block, chain: Chain) {
        block.next(self).store(chain.0 as u64, Release);
    }

    /// The chain as it is now.
    pub(crate) fn chain(self) -> Chain {
        Chain(self.head().first.load(Relaxed))
    }

    /// Makes the chain what it was.
    pub(crate) fn restore(self, chain: Chain) {
        self.head().first.store(chain.0, Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;
    use std::time::Duration;

    use super::*;
    use crate::arena::Mapping;
    use crate::sys::poll::Woken;
    use crate::sys::{Deadline, Forked, PidFd, exit_now, fork, futex, memfd, now, signal};

    fn blocks() -> Mapping {
        let fd = memfd::create(4096, 4096).unwrap();
        Mapping::new(&fd, 0, 4096).unwrap()
    }

    /// A child takes words and is killed; meanwhile the parent sleeps on the first of them.
    fn killed_with(map: &Mapping, take: impl Fn(Here)) -> Woken {
        match fork().unwrap() {
            Forked::Child => {
                take(here().unwrap());
                signal::raise(signal::SIGKILL);
                exit_now(1)
            }
            Forked::Parent(pid) => {
                let word = map.block(0).word();
                let deadline = Deadline::At(now().after(Duration::from_secs(20)));
                let mut woken = Woken::Ready;
                while word.load(SeqCst) & DIED == 0 && woken != Woken::TimedOut {
                    woken = futex::wait(word, word.load(SeqCst) & !DIED, deadline).unwrap();
                }
                PidFd::open(pid).unwrap().wait().unwrap();
                woken
            }
        }
    }

    #[test]
    fn the_words_of_a_killed_thread_are_marked_and_sleepers_are_woken() {
        let map = blocks();
        map.block(0).word().store(WAITERS, SeqCst);
        let woken = killed_with(&map, |here| {
            for at in [128, 0] {
                here.announce(map.block(at));
                map.block(at).word().store(here.tid() | WAITERS, SeqCst);
                here.keep(map.block(at));
            }
            here.announce(map.block(256));
            map.block(256).word().store(here.tid(), SeqCst);
        });
        assert_eq!(woken, Woken::Ready);
        assert_eq!(map.block(0).word().load(SeqCst), DIED | WAITERS);
        assert_eq!(map.block(128).word().load(SeqCst), DIED | WAITERS);
        assert_eq!(map.block(256).word().load(SeqCst), DIED);
    }

    #[test]
    fn what_was_given_up_is_left_alone() {
        let map = blocks();
        killed_with(&map, |here| {
            let chain = here.chain();
            here.keep(map.block(256));
            map.block(256).word().store(here.tid(), SeqCst);
            here.restore(chain);
            here.announce(map.block(0));
            map.block(0).word().store(here.tid() | WAITERS, SeqCst);
        });
        assert_ne!(map.block(256).word().load(SeqCst) & OWNER, 0);
    }
}
