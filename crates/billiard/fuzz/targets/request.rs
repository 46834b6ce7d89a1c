//! A request to a manager: whom it is for, and whether anything of the peer's would be executed when it is unpickled.
#![no_main]

use billiard::manager::{Request, RequestError};
use libfuzzer_sys::fuzz_target;

/// What begins an instruction after which the unpickler knows no name, calls nothing and asks nobody.
const HARMLESS: &[u8] =
    b".\x80q\x95r\x94\x8cX\x8d\x8aC\x8bB\x8e\x96KhMJjG(N\x88\x89)t\x85\x86\x87]ae}su\x8f\x90\x91";

fuzz_target!(|bytes: &[u8]| {
    match Request::read(bytes) {
        Ok(request) => {
            for name in [request.ident, request.method].into_iter().flatten() {
                assert!(name.is_empty() || bytes.windows(name.len()).any(|part| part == name.as_bytes()));
            }
            if request.is_plain {
                // It was read to its end, and begins with something that is known.
                assert_eq!(bytes.last(), Some(&b'.'));
                assert!(HARMLESS.contains(&bytes[0]));
                // It is the only end: with something behind it, it is no request; without it, it is cut off.
                let longer = [bytes, b"."].concat();
                assert_eq!(Request::read(&longer), Err(RequestError::Trailing(1)));
                assert_eq!(Request::read(&bytes[..bytes.len() - 1]), Err(RequestError::Cut));
                // What is looked up by name is not harmless, wherever it stands.
                let stranger = [&bytes[..bytes.len() - 1], b"\x93."].concat();
                assert!(!Request::read(&stranger).expect("it is whole").is_plain);
            }
        }
        Err(RequestError::Trailing(behind)) => {
            let end = bytes.len() - behind;
            assert!(Request::read(&bytes[..end]).expect("it ends there").is_plain);
        }
        Err(_) => {}
    }
});
