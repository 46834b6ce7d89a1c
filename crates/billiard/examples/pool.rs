//! A pool of forked workers in a Rust program: results, a time limit, and a worker that dies.
//!
//! `cargo run --release -p billiard --example pool`

#![expect(clippy::print_stdout, reason = "an example talks")]

use std::error::Error;
use std::time::{Duration, Instant};

use billiard::pool::{Pool, Settings};
use billiard::sys::exit_now;

fn answer(request: &[u8]) -> Result<Vec<u8>, Vec<u8>> {
    match request {
        b"crash" => exit_now(3),
        b"loop" => loop {
            std::hint::spin_loop();
        },
        number => {
            let text = std::str::from_utf8(number).map_err(|e| e.to_string().into_bytes())?;
            let number: u64 = text.parse().map_err(|e| format!("{text:?}: {e}").into_bytes())?;
            Ok((number * number).to_string().into_bytes())
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::start(Settings { workers: 2, ..Settings::default() }, answer)?;

    let start = Instant::now();
    let pending = (0..100_000)
        .map(|n: u64| pool.submit(n.to_string().as_bytes(), None))
        .collect::<Result<Vec<_>, _>>()?;
    let mut sum = 0u64;
    for answer in &pending {
        sum += std::str::from_utf8(&answer.wait(None)?)?.parse::<u64>()?;
    }
    let rate = 100_000.0 / start.elapsed().as_secs_f64();
    println!("the squares up to 100,000 add up to {sum}; {rate:.0} requests a second");

    for (request, limit) in [("no number", None), ("crash", None), ("loop", Some(Duration::from_millis(50)))]
    {
        match pool.submit(request.as_bytes(), limit)?.wait(None) {
            Ok(_) => println!("{request}: answered"),
            Err(error) => println!("{request}: {error}"),
        }
    }
    pool.join()?;
    Ok(())
}
