//! What should be the answer to a challenge, from somebody who does not hold the key; and the verdict on our own.
#![no_main]

use billiard::conn::Md5Policy;
use billiard::conn::auth::{CHALLENGE, Challenge, WELCOME, understand};
use libfuzzer_sys::fuzz_target;

const KEY: &[u8] = b"the key of the fuzzer";

fuzz_target!(|bytes: &[u8]| {
    let old = [CHALLENGE, &[7; 20]].concat();
    let new = [CHALLENGE, b"{sha256}", &[7; 40]].concat();
    for message in [old, new] {
        let challenge = Challenge::sent(&message).expect("it is one");
        for md5 in [Md5Policy::Accepted, Md5Policy::Refused] {
            assert!(challenge.judge(KEY, bytes, md5).is_err());
        }
    }
    assert_eq!(understand(bytes).is_ok(), bytes == WELCOME);
});
