//! Proofs that both ends of a connection hold the same key: what is said, and what it means. Nothing here reads or writes.
//!
//! One end sends a challenge, the other answers with a digest of it under the key. A challenge of 20 bytes, or an answer
//! without a name in front, is of an old peer that knows only MD5; otherwise `{name}` stands in front of either and says which
//! digest it is. The digest covers all of the challenge, its name included.

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use sha2::{Sha256, Sha384};
use sha3::{Sha3_256, Sha3_384};

/// What goes ahead of a challenge.
pub const CHALLENGE: &[u8] = b"#CHALLENGE#";
/// What the one who answered is told if the answer is right.
pub const WELCOME: &[u8] = b"#WELCOME#";
/// What the one who answered is told if it is wrong.
pub const FAILURE: &[u8] = b"#FAILURE#";
/// No message before the end of a handshake is longer.
pub const LONGEST: u64 = 256;

const RANDOM: usize = 40;
/// The challenges of those who know only MD5, of which the shorter has died out.
const OLD_LENGTHS: [usize; 2] = [16, 20];

/// Whether those who know only MD5 are talked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Md5Policy {
    /// They are, since older versions know nothing else.
    #[default]
    Accepted,
    /// They are not.
    Refused,
}

/// Why a peer is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// Its answer is wrong: it holds another key.
    #[error("digest received was wrong")]
    Wrong,
    /// It refused our answer: it holds another key.
    #[error("digest sent was rejected")]
    Rejected,
    /// It said something that is no challenge.
    #[error("the peer sent no challenge; it does not ask for a key, or is none of ours")]
    NoChallenge,
    /// It wants, or uses, a digest that we do not know.
    #[error("the peer uses a digest that is not known here")]
    UnknownDigest,
    /// It knows only MD5, which is switched off.
    #[error("the peer knows only MD5, which is not accepted here")]
    Md5Refused,
    /// It ended the conversation before it had proved anything.
    #[error("the peer closed the connection during the handshake")]
    HungUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digest {
    Md5,
    Sha256,
    Sha384,
    Sha3_256,
    Sha3_384,
}

/// What a digest is needed for: to be made, or to be compared in a time that does not depend on where it differs.
enum Use<'a> {
    Make,
    Compare(&'a [u8]),
}

impl Digest {
    const KNOWN: [(&'static [u8], Self); 5] = [
        (b"md5", Self::Md5),
        (b"sha256", Self::Sha256),
        (b"sha384", Self::Sha384),
        (b"sha3_256", Self::Sha3_256),
        (b"sha3_384", Self::Sha3_384),
    ];

    fn apply(self, key: &[u8], message: &[u8], what: &Use<'_>) -> Option<Vec<u8>> {
        fn with<M: Mac + KeyInit>(key: &[u8], message: &[u8], what: &Use<'_>) -> Option<Vec<u8>> {
            let mut mac = <M as KeyInit>::new_from_slice(key).ok()?;
            mac.update(message);
            match what {
                Use::Make => Some(mac.finalize().into_bytes().to_vec()),
                Use::Compare(other) => mac.verify_slice(other).ok().map(|()| Vec::new()),
            }
        }
        match self {
            Self::Md5 => with::<Hmac<Md5>>(key, message, what),
            Self::Sha256 => with::<Hmac<Sha256>>(key, message, what),
            Self::Sha384 => with::<Hmac<Sha384>>(key, message, what),
            Self::Sha3_256 => with::<Hmac<Sha3_256>>(key, message, what),
            Self::Sha3_384 => with::<Hmac<Sha3_384>>(key, message, what),
        }
    }
}

/// Takes a `{name}` off the front. None: there is no such thing.
fn named(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = bytes.strip_prefix(b"{")?;
    let longest = Digest::KNOWN.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let end = inner.iter().take(longest + 1).position(|byte| *byte == b'}')?;
    Some((&inner[..end], &inner[end + 1..]))
}

fn known(name: &[u8]) -> Result<Digest, AuthError> {
    Digest::KNOWN
        .iter()
        .find_map(|(known, digest)| (*known == name).then_some(*digest))
        .ok_or(AuthError::UnknownDigest)
}

fn permitted(digest: Digest, md5: Md5Policy) -> Result<Digest, AuthError> {
    if digest == Digest::Md5 && md5 == Md5Policy::Refused { Err(AuthError::Md5Refused) } else { Ok(digest) }
}

/// A challenge that was made here.
#[derive(Clone, Debug)]
pub struct Challenge {
    message: Vec<u8>,
}

impl Challenge {
    /// A new challenge out of so much randomness as [`fresh`](Self::fresh) takes.
    fn new(random: [u8; RANDOM]) -> Self {
        Self { message: [CHALLENGE, b"{sha256}", &random].concat() }
    }

    /// A new challenge that nobody can have seen before.
    ///
    /// # Errors
    /// The kernel has no randomness to give.
    pub fn fresh() -> std::io::Result<Self> {
        let mut random = [0; RANDOM];
        crate::sys::fill_random(&mut random)?;
        Ok(Self::new(random))
    }

    /// One that was sent elsewhere, by its message.
    #[must_use]
    pub fn sent(message: &[u8]) -> Option<Self> {
        message.starts_with(CHALLENGE).then(|| Self { message: message.to_vec() })
    }

    /// What to send.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// Judges an answer.
    ///
    /// # Errors
    /// It is not of somebody who holds the key.
    pub fn judge(&self, key: &[u8], answer: &[u8], md5: Md5Policy) -> Result<(), AuthError> {
        let (digest, proof) = match named(answer) {
            // What an old peer answers is random, and may happen to look like a name; those have another length.
            Some((name, proof)) if answer.len() != OLD_LENGTHS[0] => (known(name)?, proof),
            _ => (Digest::Md5, answer),
        };
        let digest = permitted(digest, md5)?;
        let covered = &self.message[CHALLENGE.len()..];
        digest.apply(key, covered, &Use::Compare(proof)).map(drop).ok_or(AuthError::Wrong)
    }
}

/// Answers the message that should be a challenge.
///
/// # Errors
/// It is none, or asks for a digest that is not to be had.
pub fn answer(key: &[u8], message: &[u8], md5: Md5Policy) -> Result<Vec<u8>, AuthError> {
    let covered = message.strip_prefix(CHALLENGE).ok_or(AuthError::NoChallenge)?;
    if covered.len() < OLD_LENGTHS[0] {
        return Err(AuthError::NoChallenge);
    }
    let digest = match named(covered) {
        _ if OLD_LENGTHS.contains(&covered.len()) => None,
        Some((name, _)) => Some((name, known(name)?)),
        None => return Err(AuthError::UnknownDigest),
    };
    let (name, digest) = digest.map_or((None, Digest::Md5), |(name, digest)| (Some(name), digest));
    let digest = permitted(digest, md5)?;
    // No key is too long or too short for these.
    let proof = digest.apply(key, covered, &Use::Make).ok_or(AuthError::UnknownDigest)?;
    Ok(name.map_or_else(|| proof.clone(), |name| [b"{", name, b"}", &proof].concat()))
}

/// Understands what is said to an answer.
///
/// # Errors
/// It was not accepted.
pub fn understand(verdict: &[u8]) -> Result<(), AuthError> {
    if verdict == WELCOME { Ok(()) } else { Err(AuthError::Rejected) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: [Md5Policy; 2] = [Md5Policy::Accepted, Md5Policy::Refused];

    fn hex(bytes: &[u8]) -> String {
        use std::fmt::Write;
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    #[test]
    fn an_old_challenge_is_answered_as_it_always_was() {
        let message = [CHALLENGE, &[b'x'; 20]].concat();
        let proof = answer(b"k", &message, Md5Policy::Accepted).unwrap();
        assert_eq!(hex(&proof), KNOWN_MD5);
        assert_eq!(answer(b"k", &message, Md5Policy::Refused), Err(AuthError::Md5Refused));
    }

    /// HMAC-MD5 of twenty times "x" under "k", by OpenSSL.
    const KNOWN_MD5: &str = "e8c8a369cca81fe93c49565f5bd38a4f";

    #[test]
    fn an_old_answer_to_a_new_challenge_is_accepted_if_md5_is() {
        let challenge = Challenge::fresh().unwrap();
        let covered = &challenge.message()[CHALLENGE.len()..];
        let old = Digest::Md5.apply(b"k", covered, &Use::Make).unwrap();
        assert_eq!(challenge.judge(b"k", &old, Md5Policy::Accepted), Ok(()));
        assert_eq!(challenge.judge(b"k", &old, Md5Policy::Refused), Err(AuthError::Md5Refused));
        assert_eq!(challenge.judge(b"l", &old, Md5Policy::Accepted), Err(AuthError::Wrong));
    }

    #[test]
    fn every_digest_that_is_asked_for_is_used() {
        for (name, _) in Digest::KNOWN {
            let message = [CHALLENGE, b"{", name, b"}", &[7; 40]].concat();
            let proof = answer(b"key", &message, Md5Policy::Accepted).unwrap();
            assert!(proof.starts_with(&[b"{", name, b"}"].concat()));
            let challenge = Challenge::sent(&message).unwrap();
            assert_eq!(challenge.judge(b"key", &proof, Md5Policy::Accepted), Ok(()));
        }
    }

    #[test]
    fn what_is_no_challenge_is_not_answered() {
        for (message, error) in [
            (b"hello".as_slice(), AuthError::NoChallenge),
            (b"#CHALLENGE#", AuthError::NoChallenge),
            (b"#CHALLENGE#123456789012345", AuthError::NoChallenge),
            (b"#CHALLENGE#12345678901234567", AuthError::UnknownDigest),
            (b"#CHALLENGE#{md4}12345678901234567890", AuthError::UnknownDigest),
            (b"#CHALLENGE#{sha256 12345678901234567890}", AuthError::UnknownDigest),
        ] {
            for md5 in BOTH {
                assert_eq!(answer(b"k", message, md5), Err(error));
            }
        }
    }

    #[test]
    fn keys_of_every_length_work() {
        for len in [0, 1, 63, 64, 65, 128, 1000] {
            let key = vec![3; len];
            let challenge = Challenge::fresh().unwrap();
            let proof = answer(&key, challenge.message(), Md5Policy::Refused).unwrap();
            assert_eq!(challenge.judge(&key, &proof, Md5Policy::Refused), Ok(()));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn no_message_does_any_harm(message: Vec<u8>, key: Vec<u8>) {
            let dressed = [CHALLENGE, b"{", &message].concat();
            for md5 in BOTH {
                let _ = answer(&key, &message, md5);
                let _ = answer(&key, &dressed, md5);
                prop_assert!(Challenge::fresh().unwrap().judge(&key, &message, md5).is_err());
                prop_assert!(Challenge::fresh().unwrap().judge(&key, &dressed, md5).is_err());
            }
        }

        #[test]
        fn an_answer_that_differs_in_one_bit_is_wrong(key: [u8; 8], at in 8..40_usize, bit in 0..8_u8) {
            let challenge = Challenge::fresh().unwrap();
            let mut proof = answer(&key, challenge.message(), Md5Policy::Refused).unwrap();
            proof[at] ^= 1 << bit;
            prop_assert_eq!(challenge.judge(&key, &proof, Md5Policy::Accepted), Err(AuthError::Wrong));
        }

        #[test]
        fn another_key_is_wrong(key: [u8; 8], other: [u8; 8]) {
            prop_assume!(key != other);
            let challenge = Challenge::fresh().unwrap();
            let proof = answer(&other, challenge.message(), Md5Policy::Accepted).unwrap();
            prop_assert_eq!(challenge.judge(&key, &proof, Md5Policy::Accepted), Err(AuthError::Wrong));
        }
    }
}
