//! A whole handshake with somebody who does not hold the key: messages, each with its length in one byte ahead.
#![no_main]

use billiard::conn::Md5Policy;
use billiard::conn::auth::LONGEST;
use billiard::conn::handshake::{Handshake, Next, Role};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for role in [Role::Listener, Role::Client] {
        for md5 in [Md5Policy::Accepted, Md5Policy::Refused] {
            let (mut end, _) = Handshake::begin(role, b"the key of the fuzzer", md5).expect("randomness");
            let mut rest = bytes;
            while let Some((length, behind)) = rest.split_first() {
                let (message, behind) = behind.split_at(usize::from(*length).min(behind.len()));
                rest = behind;
                match end.hear(message).expect("randomness") {
                    Next::Listen(said) => assert!(said.is_none_or(|said| said.len() as u64 <= LONGEST)),
                    Next::Part(..) => break,
                    Next::Trust(_) => panic!("a stranger is trusted"),
                }
            }
        }
    }
});
