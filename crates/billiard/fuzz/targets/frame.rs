//! The head of a message, however it arrives: the first byte says how many bytes come at a time.
#![no_main]

use billiard::conn::frame::{FrameError, Head, HeadReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((step, stream)) = bytes.split_first() else { return };
    let step = usize::from(*step % 13) + 1;
    let mut reader = HeadReader::default();
    let mut taken = 0;
    while let Some(place) = reader.missing() {
        let count = place.len().min(step).min(stream.len() - taken);
        if count == 0 {
            break;
        }
        place[..count].copy_from_slice(&stream[taken..taken + count]);
        reader.arrived(count);
        taken += count;
    }
    match reader.length() {
        Ok(Some(length)) => {
            assert!(taken == 4 || taken == 12);
            let length = usize::try_from(length).expect("no longer than memory");
            // A long form of what would fit the short one is odd, and understood.
            let head = Head::of(length);
            assert!(head.as_bytes() == &stream[..taken] || taken == 12 && head.as_bytes().len() == 4);
        }
        Ok(None) => assert_eq!(taken, stream.len()),
        Err(FrameError::Negative(length)) => assert!(length < 0),
        Err(_) => unreachable!("there is no other error"),
    }
});
