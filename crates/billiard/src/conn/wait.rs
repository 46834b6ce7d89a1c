//! Waiting for several things at once: connections, listeners, descriptors.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use super::connection::Connection;
use super::error::{ConnError, os};
use crate::sys::poll::{Awaited, Readiness, Woken, any_ready};
use crate::sys::{Deadline, Interrupts};

/// Something that can be waited for together with others.
pub trait Awaitable {
    /// Names what has to be watched for it to the set, by [`WaitSet::watch`]. It is ready as soon as one of these is.
    fn enlist(&self, set: &mut WaitSet);
}

impl Awaitable for Connection {
    fn enlist(&self, set: &mut WaitSet) {
        set.watch(self.as_fd().as_raw_fd(), Awaited::Data);
    }
}

impl Awaitable for OwnedFd {
    fn enlist(&self, set: &mut WaitSet) {
        set.watch(self.as_raw_fd(), Awaited::Data);
    }
}

/// A descriptor by its number, which may turn out not to be open.
impl Awaitable for RawFd {
    fn enlist(&self, set: &mut WaitSet) {
        set.watch(*self, Awaited::Data);
    }
}

/// Things that are waited for, known by the order in which they were added.
#[derive(Debug, Default)]
pub struct WaitSet {
    watched: Vec<Readiness>,
    /// Where in `watched` the descriptors of each thing end.
    ends: Vec<usize>,
}

impl WaitSet {
    /// An empty set, with room for so many.
    #[must_use]
    pub fn with_capacity(things: usize) -> Self {
        Self { watched: Vec::with_capacity(things), ends: Vec::with_capacity(things) }
    }

    /// Adds a thing. The set knows its descriptors by number: wait only while they are open.
    pub fn add<T: Awaitable + ?Sized>(&mut self, thing: &T) {
        thing.enlist(self);
        self.ends.push(self.watched.len());
    }

    /// Watches a descriptor for the thing that is being added.
    pub fn watch(&mut self, number: RawFd, what: Awaited) {
        self.watched.push(Readiness::of(number, what));
    }

    /// Waits until at least one thing is ready, which [`WaitSet::ready`] tells.
    ///
    /// # Blocking
    /// Until then, the deadline, or a signal.
    ///
    /// # Errors
    /// A descriptor is not open; what the kernel says.
    pub fn wait(
        &mut self,
        deadline: Deadline,
        interrupts: Option<Interrupts<'_>>,
    ) -> Result<Woken, ConnError> {
        let woken = any_ready(&mut self.watched, deadline, interrupts).map_err(os("wait"))?;
        match self.watched.iter().find(|watched| watched.is_unknown()) {
            Some(unknown) => Err(ConnError::NotOpen(unknown.number())),
            None => Ok(woken),
        }
    }

    /// Which things the last wait has found ready, each by its number in the order of adding.
    pub fn ready(&self) -> impl Iterator<Item = usize> + '_ {
        let mut start = 0;
        self.ends.iter().enumerate().filter_map(move |(index, end)| {
            let watched = &self.watched[std::mem::replace(&mut start, *end)..*end];
            watched.iter().any(Readiness::is_ready).then_some(index)
        })
    }
}

/// Waits until something can be received from at least one of several things, or somebody is at a listener's door. Returns the
/// numbers of those that are ready, in their order; none if the deadline has passed first. The end of a stream counts.
///
/// ```
/// use billiard::conn::{pipe, wait};
/// use billiard::sys::Deadline;
///
/// let (one, _quiet) = pipe()?;
/// let (other, mut writer) = pipe()?;
/// writer.send(b"hello", Deadline::Never)?;
/// assert_eq!(wait(&[&one, &other], Deadline::Never)?, [1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Blocking
/// Until then. Signals do not interrupt it.
///
/// # Errors
/// A descriptor that was given by its number is not open; what the kernel says.
pub fn wait(things: &[&dyn Awaitable], deadline: Deadline) -> Result<Vec<usize>, ConnError> {
    let mut set = WaitSet::with_capacity(things.len());
    for thing in things {
        set.add(*thing);
    }
    loop {
        match set.wait(deadline, None)? {
            Woken::Ready => return Ok(set.ready().collect()),
            Woken::TimedOut => return Ok(Vec::new()),
            Woken::Interrupted => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpStream;
    use std::time::Duration;

    use super::super::{Address, Listener, Md5Policy, pipe};
    use super::*;
    use crate::sys::now;

    fn patience() -> Deadline {
        Deadline::from_seconds(Some(30.0))
    }

    #[test]
    fn those_that_are_ready_are_told_in_their_order() {
        let (mut readers, mut writers): (Vec<_>, Vec<_>) = (0..5).map(|_| pipe().unwrap()).unzip();
        let all = |readers: &[Connection], deadline| {
            let things: Vec<&dyn Awaitable> = readers.iter().map(|reader| reader as &dyn Awaitable).collect();
            wait(&things, deadline).unwrap()
        };
        assert!(all(&readers, Deadline::AT_ONCE).is_empty());
        for index in [3, 1] {
            writers[index].send(b"x", Deadline::Never).unwrap();
        }
        assert_eq!(all(&readers, patience()), [1, 3]);
        readers[3].receive(Deadline::Never).unwrap();
        assert_eq!(all(&readers, Deadline::Never), [1]);
        drop(writers.remove(4));
        assert_eq!(all(&readers, Deadline::Never), [1, 4]);
    }

    #[test]
    fn it_waits_as_long_as_it_was_told() {
        let (reader, _writer) = pipe().unwrap();
        let start = now();
        let soon = Deadline::from_seconds(Some(0.02));
        assert!(wait(&[&reader], soon).unwrap().is_empty());
        assert!(wait(&[], Deadline::from_seconds(Some(0.02))).unwrap().is_empty());
        assert!(now().since(start) >= Duration::from_millis(40));
    }

    #[test]
    fn a_number_that_is_not_open_is_told() {
        let (reader, writer) = pipe().unwrap();
        // No process has so many descriptors.
        let number: RawFd = RawFd::MAX;
        let error = wait(&[&reader, &number], Deadline::Never).unwrap_err();
        assert!(matches!(error, ConnError::NotOpen(RawFd::MAX)), "{error:?}");
        drop(writer);
        assert_eq!(wait(&[&reader.into_descriptor()], Deadline::Never).unwrap(), [0]);
    }

    #[test]
    fn a_listener_is_ready_when_somebody_comes_or_goes_on() {
        let free = Address::Tcp(([127, 0, 0, 1], 0).into());
        let mut listener = Listener::bind(&free, Some(b"key"), Md5Policy::Accepted).unwrap();
        let Address::Tcp(address) = *listener.address() else { unreachable!() };
        let (quiet, _writer) = pipe().unwrap();
        assert!(wait(&[&quiet, &listener], Deadline::AT_ONCE).unwrap().is_empty());
        let mut visitor = TcpStream::connect(address).unwrap();
        assert_eq!(wait(&[&quiet, &listener], patience()).unwrap(), [1]);
        // It is let in, and asked for its key; from now on nothing is new at the listening socket itself.
        assert!(listener.accept(Deadline::from_seconds(Some(0.05))).unwrap().is_none());
        assert!(wait(&[&quiet, &listener], Deadline::AT_ONCE).unwrap().is_empty());
        visitor.write_all(b"\0\0\0\x04nope").unwrap();
        assert_eq!(wait(&[&quiet, &listener], patience()).unwrap(), [1]);
        assert!(matches!(listener.accept(patience()), Err(ConnError::Auth(_))));
    }
}
