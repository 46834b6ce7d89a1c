//! The conversation in which both ends of a connection prove that they hold the key. Messages come in, messages come out.
//!
//! ```text
//! listener   challenge
//! client     answer
//! listener   welcome, or failure and good-bye
//! client     challenge
//! listener   answer
//! client     welcome, or failure and good-bye
//! ```

use std::io;

use super::auth::{self, AuthError, Challenge, FAILURE, Md5Policy, WELCOME};

#[derive(Debug)]
enum Expects {
    Answer(Challenge),
    Challenge,
    Verdict,
}

/// Which end of the conversation this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The one that was there.
    Listener,
    /// The one that came.
    Client,
}

/// One end of the conversation.
#[derive(Debug)]
pub struct Handshake {
    key: Vec<u8>,
    md5: Md5Policy,
    role: Role,
    expects: Expects,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Listen for the next message, after having said this, if anything.
    Listen(Option<Vec<u8>>),
    /// Say this, if anything; then both ends have proved what they had to.
    Trust(Option<Vec<u8>>),
    /// Say this, if anything, and close the connection.
    Part(Option<Vec<u8>>, AuthError),
}

impl Handshake {
    /// Begins, perhaps with a message to send.
    ///
    /// # Errors
    /// The kernel has no randomness to give.
    pub fn begin(role: Role, key: &[u8], md5: Md5Policy) -> io::Result<(Self, Option<Vec<u8>>)> {
        let (expects, first) = match role {
            Role::Listener => {
                let challenge = Challenge::fresh()?;
                let message = challenge.message().to_vec();
                (Expects::Answer(challenge), Some(message))
            }
            Role::Client => (Expects::Challenge, None),
        };
        Ok((Self { key: key.to_vec(), md5, role, expects }, first))
    }

    /// Takes a message of the peer.
    ///
    /// # Errors
    /// The kernel has no randomness to give.
    pub fn hear(&mut self, message: &[u8]) -> io::Result<Next> {
        Ok(match &self.expects {
            Expects::Answer(challenge) => match challenge.judge(&self.key, message, self.md5) {
                Err(error) => Next::Part(Some(FAILURE.to_vec()), error),
                Ok(()) if self.role == Role::Client => Next::Trust(Some(WELCOME.to_vec())),
                Ok(()) => {
                    self.expects = Expects::Challenge;
                    Next::Listen(Some(WELCOME.to_vec()))
                }
            },
            Expects::Challenge => match auth::answer(&self.key, message, self.md5) {
                Err(error) => Next::Part(None, error),
                Ok(answer) => {
                    self.expects = Expects::Verdict;
                    Next::Listen(Some(answer))
                }
            },
            Expects::Verdict => match auth::understand(message) {
                Err(error) => Next::Part(None, error),
                Ok(()) if self.role == Role::Listener => Next::Trust(None),
                Ok(()) => {
                    let challenge = Challenge::fresh()?;
                    let message = challenge.message().to_vec();
                    self.expects = Expects::Answer(challenge);
                    Next::Listen(Some(message))
                }
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Lets both ends talk until neither has more to say. How each ended: `None` if it still listens.
    fn talk(keys: [&[u8]; 2], md5: [Md5Policy; 2]) -> [Option<Result<(), AuthError>>; 2] {
        let roles = [Role::Listener, Role::Client];
        let mut ends: Vec<_> = (0..2).map(|i| Handshake::begin(roles[i], keys[i], md5[i]).unwrap()).collect();
        let mut inboxes = [VecDeque::new(), VecDeque::new()];
        for i in 0..2 {
            inboxes[1 - i].extend(ends[i].1.take());
        }
        let mut outcomes = [None, None];
        loop {
            let Some(i) = (0..2).find(|i| outcomes[*i].is_none() && !inboxes[*i].is_empty()) else {
                return outcomes;
            };
            let message: Vec<u8> = inboxes[i].pop_front().unwrap();
            assert!(message.len() as u64 <= auth::LONGEST);
            let said = match ends[i].0.hear(&message).unwrap() {
                Next::Listen(say) => say,
                Next::Trust(say) => {
                    outcomes[i] = Some(Ok(()));
                    say
                }
                Next::Part(say, error) => {
                    outcomes[i] = Some(Err(error));
                    say
                }
            };
            inboxes[1 - i].extend(said);
        }
    }

    const OPEN: [Md5Policy; 2] = [Md5Policy::Accepted; 2];

    #[test]
    fn who_holds_the_key_is_trusted_by_both() {
        for key in [b"".as_slice(), b"key", &[0; 300]] {
            for md5 in [OPEN, [Md5Policy::Refused; 2]] {
                assert_eq!(talk([key, key], md5), [Some(Ok(())), Some(Ok(()))]);
            }
        }
    }

    #[test]
    fn who_does_not_is_told_so_before_anything_else() {
        let outcomes = talk([b"key", b"other"], OPEN);
        assert_eq!(outcomes, [Some(Err(AuthError::Wrong)), Some(Err(AuthError::Rejected))]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn no_stranger_is_ever_trusted(
            listens: bool,
            messages in proptest::collection::vec(
                prop_oneof![
                    any::<Vec<u8>>(),
                    Just(WELCOME.to_vec()),
                    Just(FAILURE.to_vec()),
                    any::<[u8; 20]>().prop_map(|random| [auth::CHALLENGE, &random].concat()),
                    any::<[u8; 40]>().prop_map(|random| [auth::CHALLENGE, b"{sha256}", &random].concat()),
                ],
                0..8,
            ),
        ) {
            let role = if listens { Role::Listener } else { Role::Client };
            let (mut end, _) = Handshake::begin(role, b"secret", Md5Policy::Accepted).unwrap();
            for message in messages {
                match end.hear(&message).unwrap() {
                    Next::Listen(_) => {}
                    Next::Part(..) => break,
                    Next::Trust(_) => prop_assert!(false, "a stranger was trusted"),
                }
            }
        }

        #[test]
        fn an_echo_is_never_trusted(listens: bool, rounds in 1..6_usize) {
            let role = if listens { Role::Listener } else { Role::Client };
            let (mut end, first) = Handshake::begin(role, b"secret", Md5Policy::Accepted).unwrap();
            let mut said = first.unwrap_or_else(|| [auth::CHALLENGE, b"{sha256}", &[1; 40]].concat());
            for _ in 0..rounds {
                match end.hear(&said).unwrap() {
                    Next::Listen(Some(say)) => said = say,
                    Next::Listen(None) => {}
                    Next::Part(..) => break,
                    Next::Trust(_) => prop_assert!(false, "an echo was trusted"),
                }
            }
        }
    }
}
