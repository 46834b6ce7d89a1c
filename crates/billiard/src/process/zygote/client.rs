//! The owner's side: asks for children and keeps account of how they end.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::Child;
use super::wire::{INLINE_MOST, LONGEST, MOST_KEPT, Reply, Request};
use crate::sys::packet::{self, Arrival};
use crate::sys::poll::{Woken, readable};
use crate::sys::signal::Mask;
use crate::sys::{Deadline, Ended, EventFd, Identity, PidFd, me, memfd, now};

/// How long a thread sleeps at most before it looks whether another one has taken its answer off the socket.
const GLANCE: Duration = Duration::from_millis(5);
/// How long the zygote may take to tell how a child ended whose end is known.
const PROMPT: Duration = Duration::from_millis(2);

/// Why a zygote does not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZygoteError {
    /// It has ended.
    #[error("the fork server has ended; the next start makes a new one")]
    Gone,
    /// It ended, or was killed, while it was being asked.
    #[error("the child ended before it could say that it runs")]
    Stillborn,
    /// The request came from a forked copy of the owner.
    #[error("this fork server belongs to the process that started it")]
    WrongProcess,
    /// Too many descriptors were to be passed on.
    #[error("{0} descriptors cannot be passed to a child, {MOST_KEPT} at most")]
    TooManyDescriptors(usize),
    /// The kernel refused something.
    #[error("cannot {doing}")]
    Os {
        /// What was being done.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn os(doing: &'static str) -> impl FnOnce(io::Error) -> ZygoteError {
    move |source| ZygoteError::Os { doing, source }
}

/// What became of a request.
#[derive(Debug)]
enum Answer {
    /// A child says that it runs.
    Started(PidFd),
    /// None could be forked.
    Failed(i32),
    /// What was to be loaded was dealt with.
    Loaded,
}

/// One request, and the child that came of it.
#[derive(Debug, Default)]
struct Entry {
    answer: Option<Answer>,
    end: Option<Ended>,
    /// Whoever has asked was interrupted and will never know of the child.
    unwanted: bool,
}

#[derive(Debug, Default)]
struct Account {
    entries: HashMap<u64, Entry>,
    last: u64,
    /// How many requests are under way.
    asking: usize,
    /// The other end of the socket is gone, and everything it had said was read.
    gone: bool,
}

impl Account {
    fn note(&mut self, reply: Reply, descriptor: Option<OwnedFd>) {
        let (Reply::Started { id, .. }
        | Reply::Failed { id, .. }
        | Reply::Ended { id, .. }
        | Reply::Loaded { id }) = reply;
        let Some(entry) = self.entries.get_mut(&id) else { return };
        match reply {
            Reply::Started { pid, .. } => {
                let pidfd = match descriptor {
                    Some(fd) => PidFd::from_descriptor(pid, fd),
                    None => PidFd::without_descriptor(pid),
                };
                entry.answer = pidfd.ok().map(Answer::Started);
            }
            Reply::Failed { errno, .. } => entry.answer = Some(Answer::Failed(errno)),
            Reply::Loaded { .. } => entry.answer = Some(Answer::Loaded),
            Reply::Ended { end, .. } => entry.end = Some(end),
        }
        if entry.unwanted && entry.reject() {
            self.entries.remove(&id);
        }
    }
}

impl Entry {
    /// Ends the child that nobody wants. Whether nothing more will be heard of the request.
    fn reject(&self) -> bool {
        match &self.answer {
            _ if self.end.is_some() => true,
            Some(Answer::Started(pidfd)) => {
                // If it has ended by itself, so much the better.
                let _ = pidfd.signal(libc::SIGKILL);
                false
            }
            Some(Answer::Failed(_) | Answer::Loaded) => true,
            None => false,
        }
    }
}

/// A zygote, as its owner holds it. Dropping it closes the socket, and the zygote ends.
///
/// # Fork
/// A forked copy of the owner is refused.
#[derive(Debug)]
pub struct Zygote {
    control: OwnedFd,
    owner: Identity,
    account: Mutex<Account>,
    /// Rung for those who wait for an answer, by a thread that has read something while it looked for something else.
    news: EventFd,
}

/// How far a start has come.
#[derive(Debug)]
pub enum Progress<T> {
    /// It is done.
    Done(T),
    /// The deadline passed first.
    TimedOut,
    /// A signal handler ran first: look at the signal, then go on.
    Interrupted,
}

impl Zygote {
    /// The zygote at the other end of `control`, a socket made by [`packet::pair`].
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(control: OwnedFd) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { control, owner: me(), account: Mutex::default(), news: EventFd::new()? }))
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has ended, as far as has been heard.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        if !self.owner.is_me() {
            return true;
        }
        self.overhear().gone
    }

    /// Sends the zygote away; its children live on. Dropping this value does the same, but children's handles share it.
    pub fn dismiss(&self) {
        if self.owner.is_me() {
            // Refused only if it is gone already.
            let _ = packet::finish(&self.control);
        }
    }

    /// Reads everything that has been said, for whoever it may concern.
    fn overhear(&self) -> MutexGuard<'_, Account> {
        let mut account = self.account();
        if self.listen(&mut account) && account.asking > 0 {
            self.news.ring();
        }
        account
    }

    /// Reads everything that has been said. Whether there was anything.
    fn listen(&self, account: &mut Account) -> bool {
        let mut heard = false;
        while !account.gone {
            match packet::receive(&self.control, LONGEST) {
                Ok(Arrival::Packet(packet)) => {
                    heard = true;
                    match Reply::decode(&packet.bytes) {
                        Some(Reply::Started { id, pid }) if packet.torn => {
                            // A child that cannot be watched must not run unwatched. It is the zygote's, so the number is
                            // still its own.
                            let _ = PidFd::without_descriptor(pid).map(|child| child.signal(libc::SIGKILL));
                            account.note(Reply::Failed { id, errno: libc::EMFILE }, None);
                        }
                        Some(reply) => account.note(reply, packet.fds.into_iter().next()),
                        None => {}
                    }
                }
                Ok(Arrival::Nothing) => return heard,
                // After nonsense, what follows can still be read.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Ok(Arrival::Closed) | Err(_) => {
                    account.gone = true;
                    heard = true;
                }
            }
        }
        heard
    }

    /// How the child of that request has ended. `child` is its descriptor.
    pub(crate) fn end_of(&self, id: u64, child: &PidFd) -> io::Result<Option<Ended>> {
        if let Some(end) = self.told(id) {
            return Ok(Some(end));
        }
        if !child.has_ended()? {
            return Ok(None);
        }
        readable(&[self.control.as_fd()], Deadline::At(now().after(PROMPT)), None)?;
        if let Some(end) = self.told(id) {
            return Ok(Some(end));
        }
        Ok(self.account().gone.then(|| {
            // Nobody is left to tell: the kernel may still know.
            child.outcome().map_or(Ended::UNKNOWN, |status| Ended { status, peak_rss_kib: None })
        }))
    }

    fn told(&self, id: u64) -> Option<Ended> {
        self.overhear().entries.get(&id)?.end
    }

    /// Something to sleep on while waiting for [`Zygote::end_of`].
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Nobody will ask for that child any more.
    pub(crate) fn forget(&self, id: u64) {
        self.account().entries.remove(&id);
    }

    pub(crate) const fn owner(&self) -> Identity {
        self.owner
    }

    /// Asks for a child that is given `data` and the descriptors in `keep`; the first of them ought to be the owner's own.
    /// Nothing is sent before [`Start::step`].
    ///
    /// # Errors
    /// There is no memory for the data, or there are too many descriptors.
    pub fn start<'a>(
        self: &'a Arc<Self>,
        data: &'a [u8],
        keep: &'a [BorrowedFd<'a>],
    ) -> Result<Start<'a>, ZygoteError> {
        if keep.len() > MOST_KEPT {
            return Err(ZygoteError::TooManyDescriptors(keep.len()));
        }
        let beside = if data.len() > INLINE_MOST {
            Some(memfd::holding(data).map_err(os("put a child's data into shared memory"))?)
        } else {
            None
        };
        self.ask(|id| Request::Start { id, beside: beside.is_some() }, data, keep).map(|mut start| {
            start.beside = beside;
            start
        })
    }

    /// Asks the zygote to load something, and waits until it has, like [`Zygote::start`].
    ///
    /// # Errors
    /// The description is longer than a message.
    pub fn load<'a>(self: &'a Arc<Self>, what: &'a [u8]) -> Result<Start<'a>, ZygoteError> {
        if what.len() > INLINE_MOST {
            return Err(os("describe what to load")(io::ErrorKind::InvalidInput.into()));
        }
        self.ask(|id| Request::Load { id }, what, &[])
    }

    fn ask<'a>(
        self: &'a Arc<Self>,
        request: impl FnOnce(u64) -> Request,
        data: &'a [u8],
        keep: &'a [BorrowedFd<'a>],
    ) -> Result<Start<'a>, ZygoteError> {
        if !self.owner.is_me() {
            return Err(ZygoteError::WrongProcess);
        }
        let mut account = self.account();
        account.last += 1;
        account.asking += 1;
        let id = account.last;
        account.entries.insert(id, Entry::default());
        drop(account);
        Ok(Start {
            zygote: self,
            id,
            request: request(id),
            data,
            keep,
            beside: None,
            sent: false,
            done: false,
        })
    }
}

/// A request under way. Dropped before it is done, the child that may come of it is killed.
#[derive(Debug)]
pub struct Start<'a> {
    zygote: &'a Arc<Zygote>,
    id: u64,
    request: Request,
    data: &'a [u8],
    keep: &'a [BorrowedFd<'a>],
    beside: Option<OwnedFd>,
    sent: bool,
    done: bool,
}

impl Start<'_> {
    /// Goes on with the request. With `open`, that signal mask holds for exactly the length of the sleep. Done, it answers
    /// the child; `None` if the request was to load something.
    ///
    /// # Blocking
    /// Until the child says that it runs, the deadline, or a signal handler.
    ///
    /// # Errors
    /// See [`ZygoteError`]; after [`ZygoteError::Gone`], nothing has been started.
    pub fn step(
        &mut self,
        deadline: Deadline,
        open: Option<&Mask>,
    ) -> Result<Progress<Option<Child>>, ZygoteError> {
        loop {
            if !self.sent && !self.send()? {
                // The zygote is behind with reading.
                match readable(&[], deadline.or_after(GLANCE), open).map_err(os("wait"))? {
                    Woken::Interrupted => return Ok(Progress::Interrupted),
                    _ if deadline.passed() => return Ok(Progress::TimedOut),
                    _ => continue,
                }
            }
            let Zygote { control, news, account, .. } = &**self.zygote;
            // Silenced before the look, so that what is rung for after it is not missed.
            news.clear();
            if let Some(done) = self.look()? {
                return Ok(Progress::Done(done));
            }
            // Of several who wait, one may have silenced the bell that was rung for another: then no sleep is long.
            let alone = account.lock().unwrap_or_else(PoisonError::into_inner).asking == 1;
            let until = if alone { deadline } else { deadline.or_after(GLANCE) };
            let woken = readable(&[control.as_fd(), news.as_fd()], until, open);
            match woken.map_err(os("wait for the fork server"))? {
                Woken::Interrupted => return Ok(Progress::Interrupted),
                Woken::TimedOut if deadline.passed() => return Ok(Progress::TimedOut),
                Woken::Ready | Woken::TimedOut => {}
            }
        }
    }

    fn send(&mut self) -> Result<bool, ZygoteError> {
        let head = self.request.encode();
        let data = if self.beside.is_some() { &[] } else { self.data };
        let fds: Vec<_> = self.keep.iter().copied().chain(self.beside.as_ref().map(AsFd::as_fd)).collect();
        match packet::send(&self.zygote.control, &[&head, data], &fds) {
            Ok(()) => self.sent = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(ZygoteError::Gone),
            Err(source) => return Err(os("ask the fork server")(source)),
        }
        Ok(self.sent)
    }

    fn look(&mut self) -> Result<Option<Option<Child>>, ZygoteError> {
        let mut account = self.zygote.account();
        self.zygote.listen(&mut account);
        let gone = account.gone;
        let Some(entry) = account.entries.get_mut(&self.id) else { return Err(ZygoteError::Gone) };
        let answer = entry.answer.take();
        if let Some(Answer::Started(pidfd)) = answer {
            drop(account);
            self.done = true;
            return Ok(Some(Some(Child::of_zygote(pidfd, Arc::clone(self.zygote), self.id))));
        }
        let outcome = match answer {
            Some(Answer::Failed(errno)) => Err(os("fork a child")(io::Error::from_raw_os_error(errno))),
            Some(_) => Ok(Some(None)),
            None if entry.end.is_some() => Err(ZygoteError::Stillborn),
            // A child holds the socket until it has introduced itself, so there is none that we do not know of.
            None if gone => Err(ZygoteError::Gone),
            None => return Ok(None),
        };
        self.done = true;
        account.entries.remove(&self.id);
        outcome
    }
}

impl Drop for Start<'_> {
    fn drop(&mut self) {
        // FORK: a copy has nothing to take back.
        if !self.zygote.owner.is_me() {
            return;
        }
        let mut account = self.zygote.account();
        account.asking -= 1;
        if self.done {
            return;
        }
        if let Some(entry) = account.entries.get_mut(&self.id) {
            entry.unwanted = true;
            if !self.sent || entry.reject() {
                account.entries.remove(&self.id);
            }
        }
    }
}
