//! The zygote's side: hands out the births that are wanted, and tells how the children end.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::super::Parent;
use super::wire::{LONGEST, Reply, Request};
use crate::failpoint;
use crate::sys::packet::{self, Arrival, Packet};
use crate::sys::poll::{Woken, readable, writable};
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
    /// The owner is gone, or wants no more: leave.
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
    /// What was asked and not begun.
    waiting: VecDeque<(Request, Packet)>,
}

impl Server {
    /// A server for the owner at the other end of `control`.
    pub fn new(control: OwnedFd, owner: Parent) -> io::Result<Self> {
        let poller = Poller::new()?;
        poller.add(&control, CONTROL)?;
        if let Some(fd) = owner.descriptor() {
            poller.add(fd, OWNER)?;
        }
        Ok(Self { control, owner, poller, children: HashMap::new(), waiting: VecDeque::new() })
    }

    /// Waits for the next order, and meanwhile passes on how children have ended.
    ///
    /// # Blocking
    /// Until there is one. Signals do not interrupt it.
    pub fn next_order(&mut self) -> io::Result<Order> {
        loop {
            if !self.gather()? {
                return Ok(Order::Leave);
            }
            while let Some((request, packet)) = self.waiting.pop_front() {
                if let Some(order) = self.understand(request, packet)? {
                    return Ok(order);
                }
            }
            if !self.wait()? {
                return Ok(Order::Leave);
            }
        }
    }

    /// Takes everything that was asked, so that what was called off meanwhile is not begun. False: there is nobody who asks.
    fn gather(&mut self) -> io::Result<bool> {
        loop {
            match packet::receive(&self.control, LONGEST) {
                Ok(Arrival::Packet(packet)) => match Request::decode(&packet.bytes) {
                    Some((Request::Cancel { id }, _)) => self.call_off(id),
                    Some((request, _)) => self.waiting.push_back((request, packet)),
                    None => {}
                },
                Ok(Arrival::Nothing) => return Ok(true),
                // Only an owner that is no owner sends such things.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Ok(Arrival::Closed) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    fn call_off(&mut self, id: u64) {
        self.waiting.retain(|(request, _)| request.id() != id);
        for (_, child) in self.children.values().filter(|(theirs, _)| *theirs == id) {
            // If it has ended by itself, so much the better.
            let _ = child.signal(libc::SIGKILL);
        }
    }

    fn understand(&self, request: Request, packet: Packet) -> io::Result<Option<Order>> {
        let Packet { bytes, mut fds, torn } = packet;
        let (Request::Start { id, beside } | Request::Load { id, beside }) = request else { return Ok(None) };
        let data = if torn {
            Err(io::Error::from_raw_os_error(libc::EMFILE))
        } else if beside {
            fds.pop().map_or_else(|| Err(io::ErrorKind::InvalidData.into()), memfd::contents)
        } else {
            Ok(Request::decode(&bytes).map(|(_, data)| data.to_vec()).unwrap_or_default())
        };
        match data {
            Err(error) => self.failed(id, &error).map(|()| None),
            Ok(what) if matches!(request, Request::Load { .. }) => Ok(Some(Order::Load { id, what })),
            Ok(data) => Ok(Some(Order::Fork(Birth { id, data, fds }))),
        }
    }

    /// Sleeps until something happens. False: the owner is gone.
    fn wait(&mut self) -> io::Result<bool> {
        let blind = self.children.values().any(|(_, child)| child.descriptor().is_none());
        if blind || self.owner.descriptor().is_none() {
            let soon = Deadline::At(now().after(LOOK));
            if readable(&[self.control.as_fd()], soon, None)? == Woken::TimedOut {
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
            self.say(Reply::Ended { id, end })?;
        }
        Ok(())
    }

    /// Tells the owner. One that is gone does not hear it, and that shows elsewhere too.
    fn say(&self, reply: Reply) -> io::Result<()> {
        say(&self.control, reply, None, Some(&self.owner)).map(drop)
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
        self.say(failure(id, error))
    }

    /// In the zygote: what was to be loaded has been dealt with.
    pub fn loaded(&self, id: u64) -> io::Result<()> {
        self.say(Reply::Loaded { id })
    }

    /// In the child: tells the owner that it runs, and closes what belongs to the zygote. False: there is no owner any more,
    /// and the child has to end.
    ///
    /// # Errors
    /// There is no descriptor left to show it with; the owner was told, and the child has to end as well.
    pub fn introduce(self, id: u64) -> io::Result<bool> {
        let Self { control, owner, poller, children, waiting } = self;
        // FORK: these were opened by the zygote, so dropping them here does not close them.
        let descriptors = children.values().filter_map(|(_, child)| child.descriptor());
        let inherited: Vec<RawFd> = descriptors.chain(owner.descriptor()).map(|fd| fd.as_raw_fd()).collect();
        drop((owner, poller, children, waiting));
        inherited.into_iter().for_each(close_raw);
        failpoint::pass("unintroduced");
        // KERNEL: without pidfd this one has no descriptor either, and none is sent.
        match PidFd::open(pid()) {
            Ok(own) => say(&control, Reply::Started { id, pid: pid() }, Some(&own), None),
            Err(error) => say(&control, failure(id, &error), None, None).and(Err(error)),
        }
    }

    /// How many children have not ended.
    #[must_use]
    pub fn children(&self) -> usize {
        self.children.len()
    }
}

fn failure(id: u64, error: &io::Error) -> Reply {
    Reply::Failed { id, errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

/// Tells the owner, and waits until it has room. False: it is gone.
fn say(control: &OwnedFd, reply: Reply, own: Option<&PidFd>, owner: Option<&Parent>) -> io::Result<bool> {
    let fds: Vec<_> = own.and_then(PidFd::descriptor).into_iter().collect();
    loop {
        match packet::send(control, &[&reply.encode()], &fds) {
            Ok(()) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if owner.is_some_and(|owner| !owner.is_alive().unwrap_or(true)) => return Ok(false),
            // It is behind with reading; what it is told must not be lost.
            Err(_) => writable(control.as_fd(), owner.and_then(Parent::descriptor))?,
        }
    }
}
