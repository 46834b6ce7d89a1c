//! The zygote's side: hands out the births that are wanted, and tells how the children end.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::super::Parent;
use super::wire::{LONGEST, Reply, Request};
use crate::failpoint;
use crate::sys::packet::{self, Arrival, Packet};
use crate::sys::poll::{Woken, readable};
use crate::sys::{Deadline, PidFd, Poller, close_raw, memfd, now, pid};

const CONTROL: u64 = 0;
const OWNER: u64 = 1;
/// KERNEL: without pidfd there is no event for the end of a child; they are asked this often.
const LOOK: Duration = Duration::from_millis(20);

/// What the zygote is to do next.
#[derive(Debug)]
pub enum Order {
    /// Fork, then [`Server::born`] or [`Server::failed`] in the zygote, and [`Server::introduce`] in the child.
    Fork(Birth),
    /// Load what is described, then [`Server::loaded`].
    Load {
        /// Which request this is.
        id: u64,
        /// The description.
        what: Vec<u8>,
    },
    /// The owner is gone: leave.
    Leave,
}

/// A child that is wanted.
#[derive(Debug)]
pub struct Birth {
    /// Which request this is.
    pub id: u64,
    /// What it is given.
    pub data: Vec<u8>,
    /// The descriptors it is given.
    pub fds: Vec<OwnedFd>,
}

/// The zygote's end of the socket, and its children.
#[derive(Debug)]
pub struct Server {
    control: OwnedFd,
    owner: Parent,
    poller: Poller,
    children: HashMap<i32, (u64, PidFd)>,
}

impl Server {
    /// A server for the owner at the other end of `control`.
    pub fn new(control: OwnedFd, owner: Parent) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&control, CONTROL)?;
        if let Some(fd) = owner.descriptor() {
            poller.add(fd, OWNER)?;
        }
        Ok(Self { control, owner, poller, children: HashMap::new() })
    }

    /// Waits for the next order, and meanwhile passes on how children have ended.
    ///
    /// # Blocking
    /// Until there is one. Signals do not interrupt it.
    pub fn next_order(&mut self) -> io::Result<Order> {
        loop {
            match packet::receive(&self.control, LONGEST) {
                Ok(Arrival::Packet(packet)) => {
                    if let Some(order) = self.understand(packet)? {
                        return Ok(order);
                    }
                }
                Ok(Arrival::Nothing) => {
                    if !self.wait()? {
                        return Ok(Order::Leave);
                    }
                }
                // Only an owner that is no owner sends such things.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Ok(Arrival::Closed) => return Ok(Order::Leave),
                Err(error) => return Err(error),
            }
        }
    }

    fn understand(&self, packet: Packet) -> io::Result<Option<Order>> {
        let Packet { bytes, mut fds, torn } = packet;
        Ok(match Request::decode(&bytes) {
            Some((Request::Start { id, .. }, _)) if torn => {
                self.failed(id, &io::Error::from_raw_os_error(libc::EMFILE))?;
                None
            }
            Some((Request::Start { id, beside }, rest)) => {
                let data =
                    if beside { fds.pop().map(memfd::contents).transpose() } else { Ok(Some(rest.to_vec())) };
                match data {
                    Ok(Some(data)) => Some(Order::Fork(Birth { id, data, fds })),
                    Ok(None) => None,
                    Err(error) => {
                        self.failed(id, &error)?;
                        None
                    }
                }
            }
            Some((Request::Load { id }, rest)) => Some(Order::Load { id, what: rest.to_vec() }),
            None => None,
        })
    }

    /// Sleeps until something happens. False: the owner is gone.
    fn wait(&mut self) -> io::Result<bool> {
        if self.children.values().any(|(_, child)| child.descriptor().is_none())
            || self.owner.descriptor().is_none()
        {
            if readable(&[self.control.as_fd()], Deadline::At(now().after(LOOK)), None)? == Woken::TimedOut {
                let all: Vec<_> = self.children.keys().copied().collect();
                all.into_iter().try_for_each(|child| self.look_at(child))?;
            }
            return self.owner.is_alive();
        }
        let mut tokens = Vec::new();
        match self.poller.wait(&mut tokens) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for token in tokens {
            match token {
                CONTROL => {}
                OWNER => return Ok(false),
                child => self.look_at(i32::try_from(child >> 1).unwrap_or(0))?,
            }
        }
        Ok(true)
    }

    fn look_at(&mut self, child: i32) -> io::Result<()> {
        let Some((id, pidfd)) = self.children.get(&child) else { return Ok(()) };
        if let Some(end) = pidfd.try_wait()? {
            let id = *id;
            if let Some(fd) = pidfd.descriptor() {
                // Closing it is not enough: a child that was just forked may still hold a copy.
                let _ = self.poller.remove(fd);
            }
            self.children.remove(&child);
            self.say(Reply::Ended { id, end }, None)?;
        }
        Ok(())
    }

    /// Tells the owner. False: it is gone, and that shows elsewhere too.
    fn say(&self, reply: Reply, own: Option<&PidFd>) -> io::Result<bool> {
        let fds: Vec<_> = own.and_then(PidFd::descriptor).into_iter().collect();
        loop {
            match packet::send(&self.control, &[&reply.encode()], &fds) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) if !self.owner.is_alive()? => return Ok(false),
                // It is behind with reading; what it is told must not be lost.
                Err(_) => readable(&[], Deadline::At(now().after(Duration::from_millis(1))), None)?,
            };
        }
    }

    /// In the zygote: the child was forked.
    pub fn born(&mut self, id: u64, child: i32) -> io::Result<()> {
        failpoint::pass("forked");
        let pidfd = PidFd::open(child).or_else(|_| PidFd::without_descriptor(child))?;
        if let Some(fd) = pidfd.descriptor() {
            // Even numbers from 2 on; 0 and 1 are taken.
            self.poller.add(fd, child.cast_unsigned() as u64 * 2)?;
        }
        self.children.insert(child, (id, pidfd));
        Ok(())
    }

    /// In the zygote: there is no child.
    pub fn failed(&self, id: u64, error: &io::Error) -> io::Result<()> {
        self.say(Reply::Failed { id, errno: error.raw_os_error().unwrap_or(libc::EIO) }, None).map(drop)
    }

    /// In the zygote: what was to be loaded has been dealt with.
    pub fn loaded(&self, id: u64) -> io::Result<()> {
        self.say(Reply::Loaded { id }, None).map(drop)
    }

    /// In the child: tells the owner that it runs, and closes what belongs to the zygote. False: there is no owner any more,
    /// and the child has to end.
    ///
    /// # Errors
    /// There is no descriptor left to show it with; the child has to end as well.
    pub fn introduce(self, id: u64) -> io::Result<bool> {
        // KERNEL: without pidfd this one has no descriptor either, and none is sent.
        let own = PidFd::open(pid())?;
        failpoint::pass("unintroduced");
        let heard = self.say(Reply::Started { id, pid: pid() }, Some(&own));
        // FORK: these were opened by the zygote, so dropping them here does not close them.
        let descriptors = self.children.values().filter_map(|(_, child)| child.descriptor());
        let inherited: Vec<RawFd> =
            descriptors.chain(self.owner.descriptor()).map(|fd| fd.as_raw_fd()).collect();
        drop(self);
        inherited.into_iter().for_each(close_raw);
        heard
    }

    /// How many children have not ended.
    #[must_use]
    pub fn children(&self) -> usize {
        self.children.len()
    }
}
