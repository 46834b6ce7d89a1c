//! Bytes through pipes and sockets, without ever waiting: what cannot be done at once is told as `WouldBlock`, whether or not
//! the descriptor itself is in non-blocking mode. That mode belongs to whoever shares the descriptor, so it is left alone.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat};

use super::Deadline;
use super::poll::{Awaited, Woken, poll_one};

/// What a descriptor leads to, as far as it matters for not waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A socket.
    Socket,
    /// A pipe.
    Pipe,
    /// Anything else.
    Other,
}

impl Kind {
    /// Asks the kernel.
    ///
    /// # Errors
    /// There is no such descriptor.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(match FileType::from_raw_mode(fstat(fd)?.st_mode) {
            FileType::Socket => Self::Socket,
            FileType::Fifo => Self::Pipe,
            _ => Self::Other,
        })
    }
}

/// Memory that is to be read into, the first bytes first.
#[derive(Debug)]
pub struct Room<'a> {
    start: *mut u8,
    left: usize,
    _memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: it stands for a `&mut [u8]`, which may be sent.
unsafe impl Send for Room<'_> {}

impl<'a> Room<'a> {
    /// All of a slice.
    #[must_use]
    pub const fn of(slice: &'a mut [u8]) -> Self {
        Self { start: slice.as_mut_ptr(), left: slice.len(), _memory: PhantomData }
    }

    /// Memory that need not be initialised, and that others may read or write meanwhile.
    ///
    /// # Safety
    /// The `len` bytes at `start` can be written for as long as `'a`.
    #[must_use]
    pub const unsafe fn at(start: *mut u8, len: usize) -> Self {
        Self { start, left: len, _memory: PhantomData }
    }

    /// How many bytes still fit.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.left
    }

    /// Where the rest of it begins.
    pub(crate) const fn start(&self) -> *mut u8 {
        self.start
    }

    /// The first `len` bytes of it are filled.
    pub(crate) fn skip(&mut self, len: usize) {
        assert!(len <= self.left, "the kernel never gives more than was asked for");
        self.start = self.start.wrapping_add(len);
        self.left -= len;
    }
}

/// Memory that is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    start: *const u8,
    len: usize,
    _memory: PhantomData<&'a [u8]>,
}

// SAFETY: it stands for a `&[u8]`, which may be sent.
unsafe impl Send for Piece<'_> {}

impl<'a> Piece<'a> {
    /// All of a slice.
    #[must_use]
    pub const fn of(slice: &'a [u8]) -> Self {
        Self { start: slice.as_ptr(), len: slice.len(), _memory: PhantomData }
    }

    /// Memory that others may write meanwhile.
    ///
    /// # Safety
    /// The `len` bytes at `start` can be read for as long as `'a`.
    #[must_use]
    pub const unsafe fn at(start: *const u8, len: usize) -> Self {
        Self { start, len, _memory: PhantomData }
    }

    /// How many bytes there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where they begin.
    pub(crate) const fn start(&self) -> *const u8 {
        self.start
    }

    /// Copies what is left of it.
    pub(crate) fn append_to(&self, bytes: &mut Vec<u8>) {
        bytes.reserve(self.len);
        let end = bytes.len();
        // SAFETY: `len` bytes at `start` can be read, by the invariant of `Piece`, and as many behind the vector's end were
        // reserved; memory that was just reserved is not the piece's.
        unsafe { std::ptr::copy_nonoverlapping(self.start, bytes.as_mut_ptr().wrapping_add(end), self.len) };
        // SAFETY: reserved and written above.
        unsafe { bytes.set_len(end + self.len) };
    }

    /// The first `len` bytes of it; all of it, if there are not so many.
    pub(crate) const fn first(&self, len: usize) -> Self {
        Self { start: self.start, len: if len < self.len { len } else { self.len }, _memory: PhantomData }
    }

    /// What is behind the first `len` bytes, of which there are no more than that.
    pub(crate) fn skip(&mut self, len: usize) {
        assert!(len <= self.len, "the kernel never takes more than it was given");
        self.start = self.start.wrapping_add(len);
        self.len -= len;
    }
}

/// How many pieces are written at a time; more have to wait for the next call.
const MOST_PIECES: usize = 16;
/// KERNEL: room for so much is what a pipe means by being writable.
const PIPE_ROOM: usize = 4096;

/// Reads what there is, at most as much as there is room for, and moves the room on. 0: the other end is closed, or there is
/// no room.
///
/// # Errors
/// `WouldBlock` if there is nothing now.
pub fn read(fd: BorrowedFd<'_>, kind: Kind, room: &mut Room<'_>) -> io::Result<usize> {
    let (number, start, len) = (fd.as_raw_fd(), room.start, room.left);
    let got = match kind {
        Kind::Socket => retried(|| {
            // SAFETY: there are `len` writable bytes at `start`, by the invariant of `Room`.
            unsafe { libc::recv(number, start.cast(), len, libc::MSG_DONTWAIT) }
        }),
        Kind::Pipe => {
            let place = libc::iovec { iov_base: start.cast(), iov_len: len };
            retried(|| {
                // SAFETY: one vector, of `len` writable bytes, by the invariant of `Room`. -1 is the position of what has none.
                unsafe { libc::preadv2(number, &raw const place, 1, -1, libc::RWF_NOWAIT) }
            })
            // KERNEL: pipes know this flag since Linux 6.5.
            .or_else(|error| if is_unknown(&error) { read_if_ready(fd, room) } else { Err(error) })
        }
        Kind::Other => read_if_ready(fd, room),
    }?;
    room.skip(got);
    Ok(got)
}

/// Reads once, in the mode that the descriptor is in, and moves the room on. 0: the other end is closed, or there is no room.
///
/// # Blocking
/// In blocking mode, until there is something; or until a signal handler has run on this thread.
///
/// # Errors
/// `WouldBlock` if there is nothing now, `Interrupted` if there was a signal.
pub fn read_once(fd: BorrowedFd<'_>, room: &mut Room<'_>) -> io::Result<usize> {
    let got = usize::try_from(read_raw(fd, room)).map_err(|_| io::Error::last_os_error())?;
    room.skip(got);
    Ok(got)
}

/// Has [`read_briefly`] give up after this time.
///
/// # Errors
/// It is no socket.
pub(crate) fn limit_reads(socket: BorrowedFd<'_>, time: std::time::Duration) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_socket_timeout(socket, rustix::net::sockopt::Timeout::Recv, Some(time))?)
}

/// Reads from a socket what there is, or waits for it for a moment: one call of the kernel where [`read`] takes three.
///
/// # Blocking
/// Until something arrives, or for as long as [`limit_reads`] has said; or until a signal handler has run on this thread.
///
/// # Errors
/// `WouldBlock`: nothing has arrived. `Interrupted`: a signal has.
pub(crate) fn read_briefly(socket: BorrowedFd<'_>, room: &mut Room<'_>) -> io::Result<usize> {
    // SAFETY: there are `left` writable bytes at `start`, by the invariant of `Room`.
    let got = unsafe { libc::recv(socket.as_raw_fd(), room.start.cast(), room.left, 0) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    room.skip(got);
    Ok(got)
}

/// Writes as much as is taken now. 0 only if all pieces are empty.
///
/// # Errors
/// `WouldBlock` if nothing is taken now; `BrokenPipe` if nobody can read any more.
pub fn write(fd: BorrowedFd<'_>, kind: Kind, pieces: &[Piece<'_>]) -> io::Result<usize> {
    if let (Kind::Socket, [piece]) = (kind, pieces) {
        return send(fd, piece);
    }
    let mut places = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MOST_PIECES];
    let count = pieces.len().min(MOST_PIECES);
    for (place, piece) in places.iter_mut().zip(pieces) {
        *place = libc::iovec { iov_base: piece.start.cast_mut().cast(), iov_len: piece.len };
    }
    let number = fd.as_raw_fd();
    match kind {
        Kind::Socket => retried(|| {
            // SAFETY: null pointers and zeros are what a header without name and control data has.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_iov = places.as_mut_ptr();
            header.msg_iovlen = count as _;
            // SAFETY: the header and its `count` vectors live; each is of readable bytes, by the invariant of `Piece`.
            unsafe { libc::sendmsg(number, &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) }
        })
        .map_err(unread),
        Kind::Pipe => retried(|| {
            // SAFETY: `count` vectors of readable bytes, by the invariant of `Piece`. -1 is the position of what has none.
            unsafe { libc::pwritev2(number, places.as_ptr(), count as _, -1, libc::RWF_NOWAIT) }
        })
        .or_else(|error| if is_unknown(&error) { write_if_ready(fd, pieces) } else { Err(error) }),
        Kind::Other => write_if_ready(fd, pieces),
    }
}

/// What is in one piece costs the kernel less than what has to be gathered.
fn send(fd: BorrowedFd<'_>, piece: &Piece<'_>) -> io::Result<usize> {
    let (number, start, len) = (fd.as_raw_fd(), piece.start, piece.len);
    retried(|| {
        // SAFETY: there are `len` readable bytes at `start`, by the invariant of `Piece`.
        unsafe { libc::send(number, start.cast(), len, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) }
    })
    .map_err(unread)
}

/// Both mean that nobody will ever read it.
fn unread(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ECONNRESET) => io::Error::from_raw_os_error(libc::EPIPE),
        _ => error,
    }
}

/// Whether the descriptor is in blocking mode, now.
pub fn is_blocking(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(!fcntl_getfl(fd)?.contains(OFlags::NONBLOCK))
}

/// Has the kernel keep as much as it lets us between the two ends, if that is more than it keeps now.
pub fn widen(fd: BorrowedFd<'_>, kind: Kind, want_bytes: usize) {
    // A smaller buffer is slower, and no error.
    match kind {
        Kind::Socket => {
            if rustix::net::sockopt::socket_send_buffer_size(fd).is_ok_and(|has| has < want_bytes) {
                let _ = rustix::net::sockopt::set_socket_send_buffer_size(fd, want_bytes);
            }
        }
        Kind::Pipe => {
            if rustix::pipe::fcntl_getpipe_size(fd).is_ok_and(|has| has < want_bytes) {
                let _ = rustix::pipe::fcntl_setpipe_size(fd, want_bytes);
            }
        }
        Kind::Other => {}
    }
}

fn read_if_ready(fd: BorrowedFd<'_>, room: &Room<'_>) -> io::Result<usize> {
    ready_now(fd, Awaited::Data)?;
    retried(|| read_raw(fd, room))
}

fn read_raw(fd: BorrowedFd<'_>, room: &Room<'_>) -> isize {
    // SAFETY: there are `left` writable bytes at `start`, by the invariant of `Room`.
    unsafe { libc::read(fd.as_raw_fd(), room.start.cast(), room.left) }
}

fn write_if_ready(fd: BorrowedFd<'_>, pieces: &[Piece<'_>]) -> io::Result<usize> {
    let Some(piece) = pieces.iter().find(|piece| !piece.is_empty()) else { return Ok(0) };
    ready_now(fd, Awaited::Room)?;
    // More might wait for a reader.
    let (number, start, len) = (fd.as_raw_fd(), piece.start, piece.len.min(PIPE_ROOM));
    retried(|| {
        // SAFETY: there are `len` readable bytes at `start`, by the invariant of `Piece`.
        unsafe { libc::write(number, start.cast(), len) }
    })
}

fn ready_now(fd: BorrowedFd<'_>, what: Awaited) -> io::Result<()> {
    match poll_one(fd, what, Deadline::AT_ONCE, None)? {
        Woken::Ready => Ok(()),
        Woken::TimedOut | Woken::Interrupted => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn is_unknown(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ESPIPE))
}

/// What never waits is never long interrupted.
fn retried(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(done) => return Ok(done),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;

    fn ends(kind: Kind) -> (OwnedFd, OwnedFd) {
        if kind == Kind::Socket {
            let (a, b) = std::os::unix::net::UnixStream::pair().unwrap();
            return (a.into(), b.into());
        }
        rustix::pipe::pipe().unwrap()
    }

    fn read_some(fd: &OwnedFd, kind: Kind, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let got = read(fd.as_fd(), kind, &mut Room::of(&mut bytes))?;
        bytes.truncate(got);
        Ok(bytes)
    }

    /// `Other` on a pipe is what a kernel without the flag gets.
    const WAYS: [(Kind, Kind); 3] =
        [(Kind::Socket, Kind::Socket), (Kind::Pipe, Kind::Pipe), (Kind::Pipe, Kind::Other)];

    #[test]
    fn nothing_ever_waits_though_the_descriptors_block() {
        for (real, way) in WAYS {
            let (r, w) = ends(real);
            assert_eq!(Kind::of(r.as_fd()).unwrap(), real);
            assert!(is_blocking(r.as_fd()).unwrap());
            assert_eq!(read_some(&r, way, 10).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            let block = vec![7; 100_000];
            let mut written = 0;
            let error = loop {
                match write(w.as_fd(), way, &[Piece::of(&block)]) {
                    Ok(count) => written += count,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert!(written >= 4096);
            let mut got = 0;
            while let Ok(bytes) = read_some(&r, way, 50_000) {
                assert!(bytes.iter().all(|byte| *byte == 7));
                got += bytes.len();
            }
            assert_eq!(got, written);
        }
    }

    #[test]
    fn pieces_arrive_in_their_order() {
        for (real, way) in WAYS {
            let (r, w) = ends(real);
            let mut pieces = [Piece::of(b""), Piece::of(b"one "), Piece::of(b"two")];
            let mut sent = 0;
            while sent < 7 {
                let mut count = write(w.as_fd(), way, &pieces).unwrap();
                sent += count;
                for piece in &mut pieces {
                    let taken = count.min(piece.len());
                    piece.skip(taken);
                    count -= taken;
                }
            }
            assert_eq!(read_some(&r, way, 100).unwrap(), b"one two");
        }
    }

    #[test]
    fn ends_are_told() {
        for (real, way) in WAYS {
            let (r, w) = ends(real);
            drop(w);
            assert_eq!(read_some(&r, way, 10).unwrap(), b"");
            let (r, w) = ends(real);
            drop(r);
            let error = write(w.as_fd(), way, &[Piece::of(b"x")]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
    }

    #[test]
    fn a_buffer_is_made_larger_and_never_smaller() {
        let (_r, w) = ends(Kind::Pipe);
        widen(w.as_fd(), Kind::Pipe, 256 * 1024);
        assert_eq!(rustix::pipe::fcntl_getpipe_size(&w).unwrap(), 256 * 1024);
        widen(w.as_fd(), Kind::Pipe, 4096);
        assert_eq!(rustix::pipe::fcntl_getpipe_size(&w).unwrap(), 256 * 1024);
    }
}
