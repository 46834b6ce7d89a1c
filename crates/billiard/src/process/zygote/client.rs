//! The owner's side: asks for children and hears how they end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::super::Child;
use super::account::{Account, Answer};
use super::wire::{HEAD, INLINE_MOST, MOST_KEPT, Reply, Request};
use crate::sys::Interrupts;
use crate::sys::packet::{self, Arrival};
use crate::sys::poll::{Woken, readable};
use crate::sys::{Deadline, Ended, EventFd, Identity, PidFd, me, memfd, now};

/// How long a thread sleeps before it tries again to send to a zygote that is behind with reading.
const GLANCE: Duration = Duration::from_millis(5);
/// How long the zygote may take to tell how a child ended whose end is known; then the kernel is asked.
const PROMPT: Duration = Duration::from_millis(1);
/// How long a child of a zygote that has ended may take to say that it runs.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Why a zygote does not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ZygoteError {
    /// It has ended. Nothing was started.
    #[error("the fork server has ended; the next start makes a new one")]
    Gone,
    /// The child, or the zygote, ended before the child could say that it runs.
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

/// What the owner's threads sleep on.
#[derive(Debug)]
struct Line {
    control: OwnedFd,
    /// Rings while there are answers that some thread has read and their askers do not know yet.
    news: EventFd,
}

/// A zygote, as its owner holds it. Dropping it closes the socket, and the zygote ends.
///
/// # Fork
/// A forked copy of the owner is refused.
#[derive(Debug)]
pub struct Zygote {
    line: Option<Line>,
    process: Arc<Child>,
    owner: Identity,
    account: Mutex<Account>,
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // FORK: a copy may have closed everything it inherited and opened something else under these numbers, so they must
        // not be closed again there.
        if let (false, Some(Line { control, news })) = (self.owner.is_me(), self.line.take()) {
            let _ = (control.into_raw_fd(), news.into_descriptor().into_raw_fd());
        }
    }
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
    /// The zygote at the other end of `control`, a socket made by [`packet::pair`]; `process` is its process.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(control: OwnedFd, process: Arc<Child>) -> io::Result<Arc<Self>> {
        let line = Some(Line { control, news: EventFd::new()? });
        Ok(Arc::new(Self { line, process, owner: me(), account: Mutex::default() }))
    }

    fn line(&self) -> &Line {
        self.line.as_ref().expect("it is only taken when this value is dropped")
    }

    /// The books, after everything that has been said was written down.
    fn account(&self) -> MutexGuard<'_, Account> {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        while !account.gone {
            match packet::receive(&self.line().control, HEAD) {
                Ok(Arrival::Packet(packet)) => match Reply::decode(&packet.bytes) {
                    Some(Reply::Started { id, .. }) if packet.torn => {
                        // A child that cannot be watched must not run unwatched.
                        self.call_off(id);
                        account.note(Reply::Failed { id, errno: libc::EMFILE }, None);
                    }
                    Some(reply) => account.note(reply, packet.fds.into_iter().next()),
                    None => {}
                },
                Ok(Arrival::Nothing) => break,
                // After nonsense, what follows can still be read.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Ok(Arrival::Closed) | Err(_) => account.gone = true,
            }
        }
        self.ring(&mut account);
        account
    }

    /// Has the bell say what the books say. Under their lock, so that no ring is lost.
    fn ring(&self, account: &mut Account) {
        let news = account.has_news();
        if news != account.rung {
            if news {
                self.line().news.ring()
            } else {
                self.line().news.clear()
            }
            account.rung = news;
        }
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        !self.owner.is_me() || self.account().gone || self.has_ended()
    }

    fn has_ended(&self) -> bool {
        // One whose end cannot be seen is asked, and does not answer.
        self.process.poll().is_ok_and(|status| status.is_some())
    }

    /// Sends the zygote away; its children live on. Dropping this value does the same, but children's handles share it.
    pub fn dismiss(&self) {
        if self.owner.is_me() {
            // Refused only if it is gone already.
            let _ = packet::finish(&self.line().control);
        }
    }

    /// Tells the zygote that a child is not wanted. Whether it will hear of it.
    fn call_off(&self, id: u64) -> bool {
        packet::send(&self.line().control, &[&Request::Cancel { id }.encode()], &[]).is_ok()
    }

    /// How the child of that request has ended. `child` is its descriptor.
    pub(crate) fn end_of(&self, id: u64, child: &PidFd) -> io::Result<Option<Ended>> {
        if let Some(end) = self.account().end_of(id) {
            return Ok(Some(end));
        }
        if !child.has_ended()? {
            return Ok(None);
        }
        readable(&[self.line().control.as_fd()], Deadline::At(now().after(PROMPT)), None)?;
        let account = self.account();
        if let Some(end) = account.end_of(id) {
            return Ok(Some(end));
        }
        // The zygote is behind, or gone. The kernel still knows, unless it may not say.
        let told = child.outcome().map(|status| Ended { status, peak_rss_kib: None });
        Ok(told.or_else(|| account.gone.then_some(Ended::UNKNOWN)))
    }

    /// Something to sleep on while waiting for [`Zygote::end_of`].
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.line().control.as_fd()
    }

    /// Nobody will ask for that child any more.
    pub(crate) fn forget(&self, id: u64) {
        self.account().close(id);
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
        self.ask(|id, beside| Request::Start { id, beside }, data, keep)
    }

    /// Asks the zygote to load something, and waits until it has, like [`Zygote::start`].
    ///
    /// # Errors
    /// There is no memory for the description.
    pub fn load<'a>(self: &'a Arc<Self>, what: &'a [u8]) -> Result<Start<'a>, ZygoteError> {
        self.ask(|id, beside| Request::Load { id, beside }, what, &[])
    }

    fn ask<'a>(
        self: &'a Arc<Self>,
        request: impl FnOnce(u64, bool) -> Request,
        data: &'a [u8],
        keep: &'a [BorrowedFd<'a>],
    ) -> Result<Start<'a>, ZygoteError> {
        if !self.owner.is_me() {
            return Err(ZygoteError::WrongProcess);
        }
        if keep.len() > MOST_KEPT {
            return Err(ZygoteError::TooManyDescriptors(keep.len()));
        }
        let beside = (data.len() > INLINE_MOST).then(|| memfd::holding(data)).transpose();
        let beside = beside.map_err(os("put a child's data into shared memory"))?;
        let id = self.account().open();
        let request = request(id, beside.is_some());
        Ok(Start { zygote: self, id, request, data, keep, beside, sent: false, done: false })
    }
}

/// A request under way. Dropped before it is done, it is called off, and the child that may have come of it is killed.
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
    /// Goes on with the request; `interrupts` end the wait too. Done, it answers the child; `None` if the request was to load
    /// something.
    ///
    /// # Blocking
    /// Until the child says that it runs, the deadline, or a signal handler.
    ///
    /// # Errors
    /// See [`ZygoteError`]; after [`ZygoteError::Gone`], nothing has been started.
    pub fn step(
        &mut self,
        deadline: Deadline,
        interrupts: Option<Interrupts<'_>>,
    ) -> Result<Progress<Option<Child>>, ZygoteError> {
        loop {
            if !self.sent && !self.send()? {
                // The zygote is behind with reading.
                match readable(&[], deadline.or_after(GLANCE), interrupts).map_err(os("wait"))? {
                    Woken::Interrupted => return Ok(Progress::Interrupted),
                    _ if deadline.passed() => return Ok(Progress::TimedOut),
                    _ => continue,
                }
            }
            if let Some(done) = self.look()? {
                return Ok(Progress::Done(done));
            }
            if self.zygote.has_ended() {
                return self.hear_last_words(interrupts);
            }
            let Line { control, news } = self.zygote.line();
            let mut line = vec![control.as_fd(), news.as_fd()];
            line.extend(self.zygote.process.sentinel());
            match readable(&line, deadline, interrupts).map_err(os("wait for the fork server"))? {
                Woken::Interrupted => return Ok(Progress::Interrupted),
                Woken::TimedOut => return Ok(Progress::TimedOut),
                Woken::Ready => {}
            }
        }
    }

    /// The zygote has ended, but something that it has started holds a copy of its socket: a child that was just forked,
    /// which will say so, or anything else, which will not.
    fn hear_last_words(
        &mut self,
        interrupts: Option<Interrupts<'_>>,
    ) -> Result<Progress<Option<Child>>, ZygoteError> {
        let Line { control, news } = self.zygote.line();
        let last = Deadline::At(now().after(LAST_WORDS));
        while !last.passed() {
            let woken = readable(&[control.as_fd(), news.as_fd()], last, interrupts);
            if woken.map_err(os("wait for the fork server"))? == Woken::Interrupted {
                return Ok(Progress::Interrupted);
            }
            if let Some(done) = self.look()? {
                return Ok(Progress::Done(done));
            }
        }
        Err(ZygoteError::Stillborn)
    }

    fn send(&mut self) -> Result<bool, ZygoteError> {
        let head = self.request.encode();
        let data = if self.beside.is_some() { &[] } else { self.data };
        let fds: Vec<_> = self.keep.iter().copied().chain(self.beside.as_ref().map(AsFd::as_fd)).collect();
        match packet::send(&self.zygote.line().control, &[&head, data], &fds) {
            Ok(()) => self.sent = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Err(ZygoteError::Gone),
            Err(source) => return Err(os("ask the fork server")(source)),
        }
        Ok(self.sent)
    }

    fn look(&mut self) -> Result<Option<Option<Child>>, ZygoteError> {
        let mut account = self.zygote.account();
        let answer = account.claim(self.id);
        self.zygote.ring(&mut account);
        let gone = account.gone;
        drop(account);
        self.done = answer.is_some();
        match answer {
            Some(Answer::Started(pidfd)) => {
                Ok(Some(Some(Child::of_zygote(pidfd, Arc::clone(self.zygote), self.id))))
            }
            Some(Answer::Loaded) => Ok(Some(None)),
            Some(Answer::Failed(errno)) => Err(os("fork a child")(io::Error::from_raw_os_error(errno))),
            Some(Answer::Stillborn) => Err(ZygoteError::Stillborn),
            // A child holds the socket until it has introduced itself, so there is none that we do not know of.
            None if gone => Err(ZygoteError::Gone),
            None => Ok(None),
        }
    }
}

impl Drop for Start<'_> {
    fn drop(&mut self) {
        // FORK: a copy has nothing to take back.
        if self.done || !self.zygote.owner.is_me() {
            return;
        }
        let mut account = self.zygote.account();
        let child = account.close(self.id);
        if let Some(child) = child {
            // If it has ended by itself, so much the better.
            let _ = child.signal(libc::SIGKILL);
        } else if self.sent && !self.zygote.call_off(self.id) {
            account.give_up(self.id);
        }
        self.zygote.ring(&mut account);
    }
}
