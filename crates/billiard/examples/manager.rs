//! An object server in a Rust program: a counter that several clients share, and a method that takes its time.
//!
//! `cargo run --release -p billiard --example manager`

#![expect(clippy::print_stdout, reason = "an example talks")]

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use billiard::conn::Address;
use billiard::manager::{Client, Object, Pace, Refusal, Registry, Server, Settings};
use billiard::sys::Deadline;

#[derive(Default)]
struct Counter(AtomicU64);

impl Object for Counter {
    fn call(&self, method: &str, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let text = String::from_utf8_lossy(body);
        match method {
            "add" => {
                let more: u64 = text.parse().map_err(|e| Refusal::Failed(format!("{text:?}: {e}")))?;
                let sum = self.0.fetch_add(more, Ordering::Relaxed) + more;
                Ok(sum.to_string().into_bytes())
            }
            "primes" => {
                let below: u64 = text.parse().map_err(|e| Refusal::Failed(format!("{text:?}: {e}")))?;
                let count =
                    (2..below).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d > 0)).count();
                Ok(count.to_string().into_bytes())
            }
            _ => Err(Refusal::NoMethod),
        }
    }

    fn pace(&self, method: &str) -> Pace {
        if method == "add" { Pace::Quick } else { Pace::MayWait }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let key = b"only those who hold this come in".as_slice();
    let settings = Settings { key: Some(key.to_vec()), ..Settings::default() };
    let registry = Registry::new().with("counter", Counter::default());
    let server = Server::start(&Address::Tcp("127.0.0.1:0".parse()?), registry, settings)?;
    let connect = || Client::connect(server.address(), Some(key), Deadline::from_seconds(Some(10.0)));

    let mut client = connect()?.ok_or("nobody answers")?;
    let start = Instant::now();
    let mut sum = Vec::new();
    for _ in 0..10_000 {
        sum = client.call("counter", "add", b"1", Deadline::Never)?;
    }
    let rate = 10_000.0 / start.elapsed().as_secs_f64();
    println!("the counter is at {}; {rate:.0} calls a second", String::from_utf8(sum)?);

    let primes = client.call("counter", "primes", b"100000", Deadline::Never)?;
    println!("there are {} primes below 100,000", String::from_utf8(primes)?);

    for (object, method, body) in
        [("counter", "add", "much"), ("counter", "subtract", "1"), ("clock", "add", "1")]
    {
        match client.call(object, method, body.as_bytes(), Deadline::Never) {
            Ok(_) => println!("{object}.{method}: done"),
            Err(error) => println!("{object}.{method}: {error}"),
        }
    }
    if let Err(error) = Client::connect(server.address(), Some(b"another key"), Deadline::Never) {
        println!("with another key: {error}");
    }
    Ok(())
}
