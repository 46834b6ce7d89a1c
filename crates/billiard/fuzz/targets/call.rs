//! What Rust programs say to a manager's server, and what it answers.
#![no_main]

use billiard::manager::{Call, Reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(call) = Call::read(bytes) {
        // There is one way to say it.
        assert_eq!(call.to_bytes().as_deref(), Ok(bytes));
    }
    if let Ok(reply) = Reply::read(bytes) {
        assert_eq!(Reply::read(&reply.to_bytes()), Ok(reply));
    }
});
