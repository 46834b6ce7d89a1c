//! The bytes that a listener without the key says to somebody who wants to be let in, over a real socket: frames and messages.
#![no_main]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use billiard::conn::{ConnError, Introduction, Md5Policy};
use billiard::sys::Deadline;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // As much as the socket holds without a reader.
    let bytes = &bytes[..bytes.len().min(60_000)];
    let (ours, mut theirs) = UnixStream::pair().expect("descriptors");
    theirs.write_all(bytes).expect("there is room");
    theirs.shutdown(Shutdown::Write).expect("it is open");
    let begun = Introduction::begin(ours.into(), b"the key of the fuzzer", Md5Policy::Accepted);
    match begun.expect("randomness").go_on(Deadline::Never, None) {
        Err(ConnError::Auth(_)) => {}
        other => panic!("{other:?}"),
    }
    // Nothing but an answer, and perhaps a challenge and a good-bye, is ever said to it.
    let mut said = Vec::new();
    let _ = theirs.read_to_end(&mut said);
    assert!(said.len() < 1_000);
});
