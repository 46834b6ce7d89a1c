//! The owner's books: what was asked for, what has come of it, and whether somebody has to be told.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use super::wire::Reply;
use crate::sys::{Ended, PidFd};

/// What has come of a request.
#[derive(Debug)]
pub(super) enum Answer {
    /// A child says that it runs.
    Started(PidFd),
    /// None could be forked.
    Failed(i32),
    /// What was to be loaded was dealt with.
    Loaded,
    /// The child ended before it could say that it runs.
    Stillborn,
}

/// One request, and the child that came of it.
#[derive(Debug, Default)]
struct Entry {
    answer: Option<Answer>,
    end: Option<Ended>,
    /// Whoever has asked has its answer.
    claimed: bool,
    /// Whoever has asked was interrupted, and the zygote could not be told.
    unwanted: bool,
}

impl Entry {
    const fn waits_for_its_asker(&self) -> bool {
        !self.claimed && !self.unwanted && (self.answer.is_some() || self.end.is_some())
    }
}

#[derive(Debug, Default)]
pub(super) struct Account {
    entries: HashMap<u64, Entry>,
    last: u64,
    /// How many answers have been read whose askers do not know yet.
    unclaimed: usize,
    /// The bell says so.
    pub(super) rung: bool,
    /// The other end of the socket is gone, and everything it had said was read.
    pub(super) gone: bool,
}

impl Account {
    /// Opens an entry for a request. Answers its number.
    pub(super) fn open(&mut self) -> u64 {
        self.last += 1;
        self.entries.insert(self.last, Entry::default());
        self.last
    }

    /// Whether there are answers whose askers have to be woken.
    pub(super) const fn has_news(&self) -> bool {
        self.unclaimed > 0
    }

    /// Writes down what the zygote, or a child, has said.
    pub(super) fn note(&mut self, reply: Reply, descriptor: Option<OwnedFd>) {
        let (Reply::Started { id, .. }
        | Reply::Failed { id, .. }
        | Reply::Ended { id, .. }
        | Reply::Loaded { id }) = reply;
        // Of a request that was called off, or a child whose handle is gone, nobody wants to know.
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let known = entry.waits_for_its_asker();
        match reply {
            Reply::Started { pid, .. } => {
                let pidfd = match descriptor {
                    Some(fd) => PidFd::from_descriptor(pid, fd),
                    None => PidFd::without_descriptor(pid),
                };
                if let (true, Ok(child)) = (entry.unwanted, &pidfd) {
                    // If it has ended by itself, so much the better.
                    let _ = child.signal(libc::SIGKILL);
                }
                entry.answer = pidfd.ok().map(Answer::Started);
            }
            Reply::Failed { errno, .. } => entry.answer = Some(Answer::Failed(errno)),
            Reply::Loaded { .. } => entry.answer = Some(Answer::Loaded),
            Reply::Ended { end, .. } => entry.end = Some(end),
        }
        if entry.unwanted && !matches!(reply, Reply::Started { .. }) {
            self.entries.remove(&id);
        } else if !known && entry.waits_for_its_asker() {
            self.unclaimed += 1;
        }
    }

    /// What has come of a request, for whoever has asked; it is told once.
    pub(super) fn claim(&mut self, id: u64) -> Option<Answer> {
        let entry = self.entries.get_mut(&id)?;
        if !entry.waits_for_its_asker() {
            return None;
        }
        entry.claimed = true;
        self.unclaimed -= 1;
        let answer = entry.answer.take().unwrap_or(Answer::Stillborn);
        if !matches!(answer, Answer::Started(_)) {
            self.entries.remove(&id);
        }
        Some(answer)
    }

    /// How the child of a request has ended, if that was said.
    pub(super) fn end_of(&self, id: u64) -> Option<Ended> {
        self.entries.get(&id)?.end
    }

    /// Closes an entry that nobody will ask about. Answers the child that nobody knows, if there is one already.
    pub(super) fn close(&mut self, id: u64) -> Option<PidFd> {
        let entry = self.entries.remove(&id)?;
        self.unclaimed -= usize::from(entry.waits_for_its_asker());
        match entry.answer {
            Some(Answer::Started(pidfd)) if entry.end.is_none() => Some(pidfd),
            _ => None,
        }
    }

    /// Keeps an entry whose request could not be called off: the child that may come of it is ended when it shows.
    pub(super) fn give_up(&mut self, id: u64) {
        self.entries.insert(id, Entry { unwanted: true, ..Entry::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{ExitStatus, pid};

    const END: Ended = Ended { status: ExitStatus::Code(3), peak_rss_kib: None };

    fn started(account: &mut Account, id: u64) {
        account.note(Reply::Started { id, pid: pid() }, None);
    }

    #[test]
    fn an_answer_is_news_until_it_is_claimed() {
        let mut account = Account::default();
        let (a, b) = (account.open(), account.open());
        assert!(account.claim(a).is_none() && !account.has_news());
        started(&mut account, b);
        started(&mut account, a);
        assert!(matches!(account.claim(b), Some(Answer::Started(_))));
        assert!(account.has_news(), "the other one does not know yet");
        assert!(account.claim(b).is_none(), "an answer is told once");
        assert!(matches!(account.claim(a), Some(Answer::Started(_))));
        assert!(!account.has_news());
    }

    #[test]
    fn an_end_is_kept_for_the_handle_and_is_no_news() {
        let mut account = Account::default();
        let id = account.open();
        started(&mut account, id);
        account.note(Reply::Ended { id, end: END }, None);
        assert!(matches!(account.claim(id), Some(Answer::Started(_))));
        assert_eq!((account.end_of(id), account.has_news()), (Some(END), false));
        assert!(account.close(id).is_none());
        assert_eq!(account.end_of(id), None);
    }

    #[test]
    fn an_end_without_a_start_is_a_stillbirth() {
        let mut account = Account::default();
        let id = account.open();
        account.note(Reply::Ended { id, end: END }, None);
        assert!(matches!(account.claim(id), Some(Answer::Stillborn)));
        assert!(account.entries.is_empty());
    }

    #[test]
    fn what_was_closed_is_no_news_and_leaves_nothing() {
        let mut account = Account::default();
        let (a, b) = (account.open(), account.open());
        started(&mut account, a);
        assert!(account.close(a).is_some_and(|child| child.pid() == pid()));
        assert!(account.close(b).is_none());
        started(&mut account, b);
        account.note(Reply::Failed { id: b, errno: 11 }, None);
        assert!(!account.has_news() && account.entries.is_empty());
    }

    #[test]
    fn what_was_given_up_leaves_nothing_either() {
        let mut account = Account::default();
        for reply in [
            |id| Reply::Ended { id, end: END },
            |id| Reply::Failed { id, errno: 11 },
            |id| Reply::Loaded { id },
        ] {
            let id = account.open();
            account.close(id);
            account.give_up(id);
            account.note(reply(id), None);
            assert!(!account.has_news() && account.entries.is_empty());
        }
    }
}
