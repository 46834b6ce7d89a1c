//! A page for last words: a process that is dying writes to it with nothing but `write(2)`, another one reads it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::SeekFrom;

use super::memfd;

const LEN: usize = 32 * 1024;

/// A sealed piece of memory behind a descriptor. Those who share the descriptor share the position in it; what does not fit
/// is refused by the kernel.
#[derive(Debug)]
pub struct Notebook(OwnedFd);

impl AsFd for Notebook {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Notebook {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        memfd::create(LEN as u64, 0).map(Self)
    }

    /// One that somebody else has made and sent here.
    #[must_use]
    pub const fn received(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The descriptor, for a crash handler.
    #[must_use]
    pub fn descriptor(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// What was written; `None` if nothing was.
    #[must_use]
    pub fn read(&self) -> Option<String> {
        let mut bytes = vec![0; LEN];
        let len = rustix::io::pread(&self.0, &mut bytes[..], 0).ok()?;
        let end = bytes[..len].iter().position(|b| *b == 0).unwrap_or(len);
        (end > 0).then(|| String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// Replaces what was written.
    pub fn write(&self, text: &str) {
        self.clear();
        let len = text.len().min(LEN);
        // A note that cannot be left is not left: its writer has worse problems.
        let _ = rustix::io::pwrite(&self.0, &text.as_bytes()[..len], 0);
    }

    /// Empties it; whoever writes next begins at the start.
    pub fn clear(&self) {
        let _ = memfd::release(&self.0, 0, LEN as u64);
        let _ = rustix::fs::seek(&self.0, SeekFrom::Start(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_note_replaces_a_longer_first_one() {
        let notebook = Notebook::new().unwrap();
        assert_eq!(notebook.read(), None);
        notebook.write("a long note");
        notebook.write("short");
        assert_eq!(notebook.read().as_deref(), Some("short"));
    }

    #[test]
    fn it_never_grows() {
        let notebook = Notebook::new().unwrap();
        let mut written = 0;
        while let Ok(n) = rustix::io::write(&notebook.0, &[b'x'; 4096]) {
            written += n;
        }
        assert_eq!(written, LEN);
        assert_eq!(notebook.read().map(|text| text.len()), Some(LEN));
    }
}
