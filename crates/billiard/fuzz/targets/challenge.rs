//! What should be a challenge, of old peers or of new ones: an answer to it is one that the challenger accepts, and nobody else.
#![no_main]

use billiard::conn::Md5Policy;
use billiard::conn::auth::{AuthError, CHALLENGE, Challenge, LONGEST, answer};
use libfuzzer_sys::fuzz_target;

const KEY: &[u8] = b"the key of the fuzzer";

fn check(message: &[u8]) {
    for md5 in [Md5Policy::Accepted, Md5Policy::Refused] {
        match answer(KEY, message, md5) {
            Ok(proof) => {
                assert!(message.starts_with(CHALLENGE) && proof.len() as u64 <= LONGEST);
                let challenge = Challenge::sent(message).expect("it was answered as one");
                assert_eq!(challenge.judge(KEY, &proof, md5), Ok(()));
                assert_eq!(challenge.judge(b"another", &proof, md5), Err(AuthError::Wrong));
            }
            Err(AuthError::Md5Refused) => assert_eq!(md5, Md5Policy::Refused),
            Err(AuthError::NoChallenge | AuthError::UnknownDigest) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    check(&[CHALLENGE, bytes].concat());
});
