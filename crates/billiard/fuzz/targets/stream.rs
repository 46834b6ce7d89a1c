//! A whole stream, through a real pipe, until its end: every byte is accounted for, and a lie about a length costs no memory.
#![no_main]

use billiard::conn::{ConnError, Received, pipe};
use billiard::sys::Deadline;
use libfuzzer_sys::fuzz_target;

const LIMIT: u64 = 1 << 40;

fuzz_target!(|bytes: &[u8]| {
    // As much as a pipe holds without a reader.
    let bytes = &bytes[..bytes.len().min(60_000)];
    let (reader, writer) = pipe().expect("descriptors");
    let mut reader = reader.with_limit(LIMIT);
    assert_eq!(rustix::io::write(&writer, bytes), Ok(bytes.len()));
    drop(writer);
    let mut consumed = 0;
    loop {
        match reader.receive(Deadline::Never) {
            Ok(Received::Message(message)) => {
                consumed += 4 + message.len();
                assert!(consumed <= bytes.len());
            }
            Err(ConnError::Torn { got, want }) => {
                assert!(got < want);
                break;
            }
            Err(ConnError::TooLong { announced, .. }) => {
                assert!(announced > LIMIT);
                break;
            }
            Err(ConnError::Closed | ConnError::Frame(_)) => break,
            other => panic!("{other:?}"),
        }
    }
});
