//! A server of objects and its clients, among them some that mean no good.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use billiard::conn::frame::Head;
use billiard::conn::{Address, ConnError};
use billiard::manager::{AskError, Call, Client, Object, Pace, Refusal, Registry, Reply, Server, Settings};
use billiard::sys::Deadline;

const KEY: &[u8] = b"key";

fn soon() -> Deadline {
    Deadline::from_seconds(Some(60.0))
}

/// Counts, and can be kept waiting.
#[derive(Default)]
struct Counter {
    count: Arc<AtomicU64>,
    /// Tells that a call waits, and is told when it may go on.
    gate: Option<(Sender<()>, Mutex<Receiver<()>>)>,
}

impl Object for Counter {
    fn call(&self, method: &str, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        match method {
            "add" => Ok((self.count.fetch_add(1, SeqCst) + 1).to_string().into_bytes()),
            "echo" | "echo slowly" => Ok(body.to_vec()),
            "panic" | "panic slowly" => panic!("as it was asked to"),
            "fail" => Err(Refusal::Failed("no luck".to_owned())),
            "wait" => {
                let (told, gate) = self.gate.as_ref().expect("the test has made a gate");
                told.send(()).unwrap();
                gate.lock().unwrap().recv().unwrap();
                Ok(Vec::new())
            }
            _ => Err(Refusal::NoMethod),
        }
    }

    fn pace(&self, method: &str) -> Pace {
        if method == "wait" || method.ends_with("slowly") { Pace::MayWait } else { Pace::Quick }
    }
}

fn settings() -> Settings {
    Settings { key: Some(KEY.to_vec()), ..Settings::default() }
}

fn server_with(counter: Counter, settings: Settings) -> (Server, SocketAddr) {
    let anywhere = Address::Tcp(([127, 0, 0, 1], 0).into());
    let server = Server::start(&anywhere, Registry::new().with("counter", counter), settings).unwrap();
    let Address::Tcp(address) = server.address().clone() else { unreachable!("it was bound so") };
    (server, address)
}

fn server() -> (Server, SocketAddr) {
    server_with(Counter::default(), settings())
}

fn client(address: SocketAddr) -> Client {
    Client::connect(&Address::Tcp(address), Some(KEY), soon()).unwrap().expect("in time")
}

fn echo(client: &mut Client, text: &[u8]) {
    assert_eq!(client.call("counter", "echo", text, soon()).unwrap(), text);
}

fn until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(60), "it never comes true");
        std::thread::yield_now();
    }
}

/// All that a stranger hears before it is hung up on.
fn heard(mut socket: TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    match socket.read_to_end(&mut said) {
        Ok(_) => {}
        // It had said something that was not even read.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
    said
}

fn frame(message: &[u8]) -> Vec<u8> {
    [Head::of(message.len()).as_bytes(), message].concat()
}

fn add() -> Vec<u8> {
    Call { object: "counter", method: "add", body: b"" }.to_bytes().unwrap()
}

#[test]
fn calls_are_answered_each_with_its_own_answer() {
    let (_server, address) = server();
    let mut clients: Vec<_> = (0..8).map(|_| client(address)).collect();
    for round in 0..20 {
        for (number, client) in clients.iter_mut().enumerate() {
            echo(client, format!("{round} {number}").as_bytes());
        }
    }
    let large = vec![7; 3 << 20];
    for method in ["echo", "echo slowly", "echo"] {
        assert_eq!(clients[0].call("counter", method, &large, soon()).unwrap(), large);
    }
}

#[test]
fn what_there_is_not_and_what_fails_is_told_and_the_next_call_is_answered() {
    let (_server, address) = server();
    let mut client = client(address);
    // First in the hall, then on a thread of its own.
    for panics in ["panic", "panic slowly"] {
        let error = client.call("clock", "add", b"", soon()).unwrap_err();
        assert!(matches!(&error, AskError::NoObject(name) if name == "clock"), "{error}");
        let error = client.call("counter", "__class__", b"", soon()).unwrap_err();
        assert_eq!(error.to_string(), "\"counter\" has no method \"__class__\"");
        let error = client.call("counter", "fail", b"", soon()).unwrap_err();
        assert!(matches!(&error, AskError::Failed(text) if text == "no luck"), "{error}");
        let error = client.call("counter", panics, b"", soon()).unwrap_err();
        assert!(matches!(&error, AskError::Failed(text) if text.contains("panicked")), "{error}");
        let error = client.call(&"x".repeat(300), "add", b"", soon()).unwrap_err();
        assert!(matches!(error, AskError::Call(_)), "{error}");
        echo(&mut client, b"still here");
    }
}

#[test]
fn a_method_that_waits_keeps_its_own_client_waiting_only() {
    let (told, waits) = channel();
    let (open, gate) = channel();
    let counter = Counter { gate: Some((told, Mutex::new(gate))), ..Counter::default() };
    let (_server, address) = server_with(counter, settings());
    std::thread::scope(|scope| {
        let waiting = std::thread::Builder::new()
            .spawn_scoped(scope, || client(address).call("counter", "wait", b"", soon()))
            .unwrap();
        waits.recv().unwrap();
        echo(&mut client(address), b"meanwhile");
        open.send(()).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), b"");
    });
}

#[test]
fn an_answer_that_is_late_is_never_taken_for_another_ones() {
    let (told, waits) = channel();
    let (open, gate) = channel();
    let counter = Counter { gate: Some((told, Mutex::new(gate))), ..Counter::default() };
    let (_server, address) = server_with(counter, settings());
    let mut client = client(address);
    let brief = Deadline::from_seconds(Some(0.02));
    assert!(matches!(client.call("counter", "wait", b"", brief), Err(AskError::TimedOut)));
    waits.recv().unwrap();
    open.send(()).unwrap();
    assert!(matches!(client.call("counter", "add", b"", soon()), Err(AskError::Broken)));
}

#[test]
fn who_holds_another_key_is_told_and_nobody_else_notices() {
    let (server, address) = server();
    let mut friend = client(address);
    for _ in 0..10 {
        let refused = Client::connect(&Address::Tcp(address), Some(b"other"), soon()).unwrap_err();
        assert!(matches!(refused, ConnError::Auth(_)), "{refused:?}");
        echo(&mut friend, b"still here");
    }
    assert_eq!(server.clients(), 1);
}

#[test]
fn bytes_before_the_proof_have_no_effect() {
    let count = Arc::new(AtomicU64::new(0));
    let (server, address) =
        server_with(Counter { count: Arc::clone(&count), ..Counter::default() }, settings());
    let mut friend = client(address);
    for said in [
        frame(&add()),
        [frame(b"#WELCOME#"), frame(&add())].concat(),
        [frame(&[0; 32]), frame(b"#WELCOME#"), frame(&add())].concat(),
        frame(&vec![0; 1 << 20]),
        b"\xff\xff\xff\xff\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(),
        b"\0\0\0\x10half of".to_vec(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        Vec::new(),
    ] {
        let mut stranger = TcpStream::connect(address).unwrap();
        // It may have been hung up on already.
        let _ = stranger.write_all(&said);
        let _ = stranger.shutdown(Shutdown::Write);
        let answers = heard(stranger);
        assert!(!answers.ends_with(&frame(b"#WELCOME#")), "{said:?}");
        echo(&mut friend, b"still here");
    }
    assert_eq!((count.load(SeqCst), server.clients()), (0, 1));
}

#[test]
fn who_says_nothing_is_shown_out_and_keeps_nobody_waiting() {
    let patience = Duration::from_millis(500);
    let (_server, address) = server_with(Counter::default(), Settings { patience, ..settings() });
    let start = Instant::now();
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    // On a busy machine we may be late ourselves.
    until(|| {
        let client = Client::connect(&Address::Tcp(address), Some(KEY), soon());
        client.is_ok_and(|client| {
            client.is_some_and(|mut client| client.call("counter", "add", b"", soon()).is_ok())
        })
    });
    for stranger in silent {
        // Shown out for its silence, or for the others who came after it.
        let said = heard(stranger);
        assert!(said.is_empty() || said[4..].starts_with(b"#CHALLENGE#"));
    }
    assert!(start.elapsed() >= patience);
}

#[test]
fn who_announces_more_than_is_taken_is_shown_out() {
    let (server, address) = server_with(Counter::default(), Settings { longest_call: 1000, ..settings() });
    let mut friend = client(address);
    for method in ["echo", "echo slowly"] {
        let mut greedy = client(address);
        assert_eq!(greedy.call("counter", method, b"short", soon()).unwrap(), b"short");
        let error = greedy.call("counter", method, &[0; 2000], soon()).unwrap_err();
        assert!(matches!(error, AskError::Conn(_)), "{error}");
        echo(&mut friend, b"still here");
    }
    until(|| server.clients() == 1);
}

#[test]
fn who_talks_nonsense_after_the_proof_is_told_so() {
    // Without a key there is no proof to give.
    let (_server, address) = server_with(Counter::default(), Settings::default());
    for nonsense in [b"".as_slice(), b"\xffabc", b"\x01\xff\x00", b"\x80\x04(N\x8c\x05dummy\x94)}\x94t\x94."]
    {
        let mut stranger = TcpStream::connect(address).unwrap();
        stranger.write_all(&frame(nonsense)).unwrap();
        stranger.shutdown(Shutdown::Write).unwrap();
        let said = heard(stranger);
        assert_eq!(Reply::read(&said[4..]), Ok(Reply::NoCall));
    }
}

#[test]
fn one_who_asks_without_end_and_does_not_listen_keeps_nobody_waiting() {
    let (server, address) = server_with(Counter::default(), Settings::default());
    let mut eager = TcpStream::connect(address).unwrap();
    eager.set_nonblocking(true).unwrap();
    let flood = frame(&Call { object: "counter", method: "echo", body: &[1; 900] }.to_bytes().unwrap());
    let mut friend = Client::connect(&Address::Tcp(address), None, soon()).unwrap().unwrap();
    let mut sent = 0;
    for round in 0..200 {
        // As much as is taken; whole frames, or the server would be right to hang up.
        while let Ok(more) = eager.write(&flood[sent % flood.len()..]) {
            sent += more;
            if sent > (round + 1) * 100_000 {
                break;
            }
        }
        echo(&mut friend, b"still here");
    }
    assert!(sent > 100_000);
    drop(eager);
    until(|| server.clients() == 1);
}

#[test]
fn one_too_many_is_hung_up_on_until_another_one_leaves() {
    let (server, address) = server_with(Counter::default(), Settings { most_clients: 2, ..settings() });
    let (mut first, mut second) = (client(address), client(address));
    echo(&mut first, b"in");
    // On a thread of its own it counts, too.
    second.call("counter", "echo slowly", b"", soon()).unwrap();
    let error = client(address).call("counter", "add", b"", soon()).unwrap_err();
    assert!(matches!(error, AskError::Conn(_)), "{error}");
    drop(second);
    until(|| server.clients() == 1);
    echo(&mut client(address), b"in");
}

#[test]
fn its_end_is_seen_by_everybody_and_its_place_is_free() {
    let path = std::env::temp_dir().join(format!("billiard-manager-{}", billiard::sys::pid()));
    let address = Address::Unix(path.clone());
    for _ in 0..3 {
        let registry = Registry::new().with("counter", Counter::default());
        let server = Server::start(&address, registry, settings()).unwrap();
        let mut clients: Vec<_> =
            (0..4).map(|_| Client::connect(&address, Some(KEY), soon()).unwrap().unwrap()).collect();
        for (client, method) in clients.iter_mut().zip(["echo", "echo slowly", "echo", "echo slowly"]) {
            client.call("counter", method, b"", soon()).unwrap();
        }
        drop(server);
        for client in &mut clients {
            let error = client.call("counter", "echo", b"", soon()).unwrap_err();
            assert!(matches!(error, AskError::Conn(_)), "{error}");
        }
        assert!(!path.exists());
        assert!(Client::connect(&address, Some(KEY), soon()).is_err());
    }
}
