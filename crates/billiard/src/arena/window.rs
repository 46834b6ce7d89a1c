//! Windows: shared memory that a program uses in place, as if it were its own. A window is a mapping for itself, so that what
//! becomes of it touches nobody else's.
//!
//! A program takes it for granted that what it has is its own: that a child which it forks has a copy, that what it does to its own
//! afterwards does not change that copy, and that the copy does not change when the program has done with its own. So before
//! a process forks, all its windows become private memory, with what is in them. That costs the copy that the window has saved.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::null_mut;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};

use crate::failpoint;
use crate::sys::PerProcess;

/// What keeps the memory of a window from being used for something else. Dropped, the memory is given back.
type Hold = Box<dyn Any + Send>;

/// The windows that are shared memory, by number.
#[derive(Default)]
struct Open {
    next: u64,
    panes: BTreeMap<u64, Weak<Pane>>,
}

/// FORK: a child has none: those that it inherits are private.
static OPEN: PerProcess<Mutex<Open>> = PerProcess::new();
static REGISTERED: Once = Once::new();

fn open() -> MutexGuard<'static, Open> {
    OPEN.get(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

extern "C" fn before_fork() {
    for pane in open().panes.values().filter_map(Weak::upgrade) {
        pane.make_private();
    }
}

/// Mappings of one file that nobody uses any more. The next window on the same part takes one, with all its pages: to map and unmap
/// several megabytes costs more than to copy them.
///
/// # Fork
/// A child has none: what its parent has put there stays mapped, and unused.
#[derive(Debug)]
pub struct Shelf(PerProcess<Mutex<Vec<Spare>>>);

#[derive(Debug)]
struct Spare {
    start: *mut u8,
    len: usize,
    offset: u64,
}

// SAFETY: the pointer is to a mapping of this process that nobody uses.
unsafe impl Send for Spare {}

impl Drop for Spare {
    fn drop(&mut self) {
        // SAFETY: a mapping of ours that nobody uses.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// So many bytes of them are kept.
const MOST_SPARE: usize = 128 << 20;

impl Default for Shelf {
    fn default() -> Self {
        Self(PerProcess::new())
    }
}

impl Shelf {
    fn spares(&self) -> MutexGuard<'_, Vec<Spare>> {
        self.0.get(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, offset: u64, len: usize) -> Option<*mut u8> {
        let mut spares = self.spares();
        let index = spares.iter().position(|spare| (spare.offset, spare.len) == (offset, len))?;
        let spare = ManuallyDrop::new(spares.swap_remove(index));
        Some(spare.start)
    }

    fn put(&self, spare: Spare) {
        let mut spares = self.spares();
        spares.push(spare);
        let mut whole: usize = spares.iter().map(|spare| spare.len).sum();
        // The oldest first.
        spares.retain(|spare| {
            let stays = whole <= MOST_SPARE;
            if !stays {
                whole -= spare.len;
            }
            stays
        });
    }
}

/// A part of shared memory, mapped to be used in place.
#[derive(Debug)]
pub struct Window {
    pane: Arc<Pane>,
    number: u64,
    /// Whether the pages of it may be mapped already.
    used: bool,
}

impl Window {
    /// Maps `len` bytes of `fd` from `offset` on, a multiple of the page size. `hold` keeps them from being used for
    /// something else, and is dropped once this process has nothing to do with them any more. `shelf` is that of this file, if it has
    /// one.
    ///
    /// # Errors
    /// The kernel maps no more; `hold` is handed back.
    ///
    /// # Fork
    /// From the fork on, parent and child each have a private copy.
    pub fn new<H: Any + Send>(
        fd: &Arc<OwnedFd>,
        offset: u64,
        len: usize,
        shelf: Option<&Arc<Shelf>>,
        hold: H,
    ) -> Result<Self, (io::Error, H)> {
        // SAFETY: the handler lives as long as the program; it runs in an ordinary thread, before anything of the fork is done.
        REGISTERED.call_once(|| unsafe {
            libc::pthread_atfork(Some(before_fork), None, None);
        });
        let spare = shelf.and_then(|shelf| shelf.take(offset, len));
        let start = match spare.map_or_else(|| map(fd, offset, len, libc::MAP_SHARED), Ok) {
            Ok(start) => start,
            Err(error) => return Err((error, hold)),
        };
        let hold: Mutex<Option<Hold>> = Mutex::new(Some(Box::new(hold)));
        let pane =
            Arc::new(Pane { start, len, fd: Arc::clone(fd), offset, shelf: shelf.map(Arc::clone), hold });
        let mut open = open();
        let number = open.next;
        open.next += 1;
        open.panes.insert(number, Arc::downgrade(&pane));
        Ok(Self { pane, number, used: spare.is_some() })
    }

    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pane.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pane.len == 0
    }

    /// Has what is there mapped at once, for reading and for writing, and not page by page at the first touch.
    pub fn prepare(&self) {
        if self.used {
            return;
        }
        // KERNEL: MADV_POPULATE_READ since 5.14; EINVAL before, and pages come at the first touch. In a shared mapping of
        // memory what can be read can be written.
        // SAFETY: a mapping of ours; the advice changes nothing that is in it. That it was refused makes no difference to anybody.
        unsafe { libc::madvise(self.pane.start.cast(), self.pane.len, libc::MADV_POPULATE_READ) };
    }

    /// One byte of it, as it is now.
    #[must_use]
    pub fn byte(&self, at: usize) -> u8 {
        // SAFETY: `pointer` has checked that it is inside; others may write to it meanwhile.
        let byte = unsafe { AtomicU8::from_ptr(self.pointer(at, 1)) };
        // Relaxed: no order is needed.
        byte.load(Relaxed)
    }

    /// Where a range lies in this process, valid while the window lives.
    #[must_use]
    pub fn pointer(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.pane.len), "range outside of the window");
        self.pane.start.wrapping_add(at)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // FORK: in a child the number is unknown, or that of another one: which is private, or is still alive.
        let mut open = open();
        if open.panes.get(&self.number).is_some_and(|pane| std::ptr::eq(pane.as_ptr(), &raw const *self.pane))
        {
            open.panes.remove(&self.number);
        }
    }
}

struct Pane {
    start: *mut u8,
    len: usize,
    fd: Arc<OwnedFd>,
    offset: u64,
    shelf: Option<Arc<Shelf>>,
    /// `None`: the memory is private.
    hold: Mutex<Option<Hold>>,
}

// SAFETY: the pointer is to a mapping that is there for whoever has the pane; what programs do with its bytes is their affair.
unsafe impl Send for Pane {}
// SAFETY: as above; the rest is behind a lock.
unsafe impl Sync for Pane {}

impl std::fmt::Debug for Pane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pane").field("start", &self.start).field("len", &self.len).finish_non_exhaustive()
    }
}

impl Pane {
    /// Puts private memory with the same bytes in its place. Other threads may read and write meanwhile; nothing of theirs is lost.
    fn make_private(&self) {
        let mut hold = self.hold.lock().unwrap_or_else(PoisonError::into_inner);
        if hold.is_none() {
            return;
        }
        if self.detach().is_ok() {
            failpoint::pass("window_private");
            *hold = None;
        } else if let Some(hold) = hold.take() {
            // A child may still see the memory: nobody gets it before this process ends.
            Box::leak(hold);
        }
    }

    fn detach(&self) -> io::Result<()> {
        let fresh = map(&self.fd, self.offset, self.len, libc::MAP_PRIVATE)?;
        // In one step: whoever wrote before wrote to the file, which the fresh mapping still shows; whoever writes afterwards
        // writes to it.
        // SAFETY: both are mappings of `len` bytes of ours. Whoever has a pointer into the pane finds the same bytes there.
        let moved = unsafe {
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            libc::mremap(fresh.cast(), self.len, self.len, flags, self.start)
        };
        if moved == libc::MAP_FAILED {
            let error = io::Error::last_os_error();
            // SAFETY: mapped above, and nobody has seen it.
            unsafe { libc::munmap(fresh.cast(), self.len) };
            return Err(error);
        }
        // KERNEL: MADV_POPULATE_WRITE since 5.14; EINVAL before.
        // SAFETY: a mapping of ours; the advice changes nothing that is in it, and tells if there is no memory for it.
        let rc = unsafe { libc::madvise(self.start.cast(), self.len, libc::MADV_POPULATE_WRITE) };
        if rc != 0 {
            match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EINVAL) => self.touch(),
                error => return Err(error),
            }
        }
        Ok(())
    }

    /// Has the kernel copy each page, by a write that changes nothing.
    fn touch(&self) {
        for at in (0..self.len).step_by(rustix::param::page_size()) {
            // SAFETY: inside of the mapping, and a byte is always aligned. Threads of the program that write to it meanwhile do it with
            // plain stores, which this never takes back: it stores what it has just seen, or fails.
            let byte = unsafe { AtomicU8::from_ptr(self.start.wrapping_add(at)) };
            // Relaxed: no order is needed.
            let mut seen = byte.load(Relaxed);
            // An exchange is never left out, as an addition of zero might be.
            while let Err(other) = byte.compare_exchange(seen, seen, SeqCst, Relaxed) {
                seen = other;
            }
        }
    }
}

impl Drop for Pane {
    fn drop(&mut self) {
        // Pointers into it are only valid while the window lives, so nobody uses it any more. What held its memory is dropped afterwards.
        let spare = Spare { start: self.start, len: self.len, offset: self.offset };
        let is_shared = self.hold.get_mut().unwrap_or_else(PoisonError::into_inner).is_some();
        if is_shared && let Some(shelf) = &self.shelf {
            shelf.put(spare);
        }
    }
}

fn map(fd: &OwnedFd, offset: u64, len: usize, kind: libc::c_int) -> io::Result<*mut u8> {
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, at a place that the kernel chooses.
    let start = unsafe { libc::mmap(null_mut(), len, protection, kind, fd.as_raw_fd(), offset) };
    if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(start.cast()) }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;
    use crate::sys::{ExitStatus, Forked, PidFd, exit_now, fork, memfd};

    /// Counts the drops of what it is given to.
    struct Counted(Arc<AtomicU32>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    fn byte(window: &Window, at: usize) -> &AtomicU8 {
        // SAFETY: inside of the window, for as long as it lives.
        unsafe { AtomicU8::from_ptr(window.pointer(at, 1)) }
    }

    fn made(pages: u64) -> (Arc<OwnedFd>, Window, Arc<AtomicU32>) {
        let fd = Arc::new(memfd::create(pages * 4096, pages * 4096).unwrap());
        let dropped = Arc::new(AtomicU32::new(0));
        let window = Window::new(&fd, 0, pages as usize * 4096, None, Counted(Arc::clone(&dropped)));
        (fd, window.map_err(|(error, _)| error).unwrap(), dropped)
    }

    fn file_byte(fd: &OwnedFd, at: u64) -> u8 {
        let mut bytes = [0];
        memfd::read_at(fd, at, &mut bytes).unwrap();
        bytes[0]
    }

    #[test]
    fn it_is_the_memory_itself_and_is_held_until_it_is_dropped() {
        let (fd, window, dropped) = made(2);
        byte(&window, 4097).store(7, SeqCst);
        assert_eq!(file_byte(&fd, 4097), 7);
        memfd::write_at(&fd, 5, b"x").unwrap();
        assert_eq!(byte(&window, 5).load(SeqCst), b'x');
        assert_eq!(dropped.load(SeqCst), 0);
        drop(window);
        assert_eq!(dropped.load(SeqCst), 1);
    }

    #[test]
    fn parent_and_child_have_their_own_after_a_fork() {
        let (fd, window, dropped) = made(3);
        byte(&window, 1).store(1, SeqCst);
        byte(&window, 8192).store(2, SeqCst);
        match fork().unwrap() {
            Forked::Child => {
                let seen = [1, 8192].map(|at| byte(&window, at).load(SeqCst));
                byte(&window, 1).store(9, SeqCst);
                // Whatever becomes of the memory that it was.
                memfd::write_at(&fd, 8192, b"new").unwrap();
                let kept = byte(&window, 8192).load(SeqCst) == 2;
                drop(window);
                exit_now(i32::from(!(seen == [1, 2] && kept)))
            }
            Forked::Parent(pid) => {
                let ended = PidFd::open(pid).unwrap().wait().unwrap().unwrap();
                assert_eq!(ended.status, ExitStatus::Code(0));
            }
        }
        assert_eq!(dropped.load(SeqCst), 1, "it was given back when it became private");
        assert_eq!([1, 8192].map(|at| byte(&window, at).load(SeqCst)), [1, 2]);
        assert_eq!(file_byte(&fd, 8192), b'n');
        drop(window);
        assert_eq!(dropped.load(SeqCst), 1);
    }

    #[test]
    fn what_threads_write_while_it_becomes_private_is_kept() {
        let (_fd, window, _) = made(300);
        let window = Arc::new(window);
        let writer = Arc::clone(&window);
        let thread = std::thread::Builder::new().spawn(move || {
            for value in 1..=50_u8 {
                (0..300).for_each(|page| byte(&writer, page * 4096 + 10).store(value, SeqCst));
                (0..300).for_each(|page| assert_eq!(byte(&writer, page * 4096 + 10).load(SeqCst), value));
            }
        });
        window.pane.make_private();
        thread.unwrap().join().unwrap();
        assert!((0..300).all(|page| byte(&window, page * 4096 + 10).load(SeqCst) == 50));
    }

    #[test]
    fn a_kernel_that_does_not_populate_is_helped() {
        let (fd, window, _) = made(4);
        byte(&window, 4096).store(3, SeqCst);
        window.pane.touch();
        assert_eq!(byte(&window, 4096).load(SeqCst), 3);
        assert_eq!(file_byte(&fd, 4096), 3);
    }

    #[test]
    fn a_mapping_is_used_again_for_the_same_part_unless_it_became_private() {
        let fd = Arc::new(memfd::create(16 * 4096, 16 * 4096).unwrap());
        let shelf = Arc::new(Shelf::default());
        let open = |page: u64, pages: usize| {
            Window::new(&fd, page * 4096, pages * 4096, Some(&shelf), ())
                .map_err(|(error, ())| error)
                .unwrap()
        };
        let start = open(2, 3).pointer(0, 1);
        let again = open(2, 3);
        assert!(again.used && again.pointer(0, 1) == start);
        assert!(!open(2, 3).used, "it is in use");
        assert!(!open(2, 4).used && !open(3, 3).used);
        shelf.spares().clear();
        again.pane.make_private();
        drop(again);
        assert!(shelf.spares().is_empty());
        memfd::write_at(&fd, 2 * 4096, b"new").unwrap();
        assert_eq!(byte(&open(2, 3), 0).load(SeqCst), b'n');
    }

    #[test]
    fn what_cannot_be_mapped_is_handed_back() {
        let fd = Arc::new(memfd::create(4096, 0).unwrap());
        let (error, hold) = Window::new(&fd, 1, 4096, None, "held").unwrap_err();
        assert_eq!((error.kind(), hold), (io::ErrorKind::InvalidInput, "held"));
    }
}
