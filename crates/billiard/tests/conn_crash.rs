//! Processes that are killed inside a message, and at each step of a handshake, on either side. The other side is told within its
//! deadline; the listener goes on to serve others; those who wait to be let in by a listener that dies are not left waiting.
//!
//! This program has its own `main`: it runs itself again, in the role of whoever is killed, and of those who are not.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::panic,
    reason = "a test program of its own talks to who runs it"
)]

use std::io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

mod runner;

use billiard::conn::auth::AuthError;
use billiard::conn::frame::Head;
use billiard::conn::{
    Address, ConnError, Connection, Listener, Md5Policy, Received, connect, duplex, pipe, wait,
};
use billiard::sys::descriptor::claim;
use billiard::sys::{Deadline, now, pid, poll};

/// Longer than anything here takes, unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const KEY: &[u8] = b"a key that both hold";
/// The lengths of the messages that are sent. The long ones do not fit into what the kernel keeps between the ends.
const LENGTHS: [usize; 5] = [10, 0, 3_000_000, 1, 5_000_000];
/// The first long one.
const LONG: usize = 2;
/// Inside a message: where it is killed who sends or receives, and how often it passes the place by then.
const IN_MESSAGES: [(&str, &str, u32); 6] = [
    ("send", "conn.sending", 1),
    ("send", "none", 1),
    ("receive", "conn.head", 1),
    ("receive", "conn.head", 3),
    ("receive", "conn.receiving", 1),
    ("receive", "none", 1),
];
/// Inside a handshake: a client says three things, and hears three.
const CLIENT_STEPS: [(&str, u32); 6] = [
    ("conn.said", 1),
    ("conn.said", 2),
    ("conn.said", 3),
    ("conn.heard", 1),
    ("conn.heard", 2),
    ("conn.heard", 3),
];
/// A listener does so with each of its four clients, in whatever order they come. One more visitor says nothing.
const LISTENER_STEPS: [(&str, u32); 8] = [
    ("conn.let_in", 1),
    ("conn.let_in", 3),
    ("conn.said", 1),
    ("conn.said", 6),
    ("conn.said", 12),
    ("conn.heard", 1),
    ("conn.heard", 6),
    ("conn.heard", 12),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "--role") {
        play(&args[1], &args[2]);
        return ExitCode::SUCCESS;
    }
    let mut tests: Vec<runner::Test<'_>> = Vec::new();
    for (role, place, times) in IN_MESSAGES {
        let name = format!("killed_as_it_{role}s_at_{}_{times}", place.replace('.', "_"));
        tests.push((
            name,
            Box::new(move || {
                inside_a_message(role, place, times);
                true
            }),
        ));
    }
    for (place, times) in CLIENT_STEPS {
        let name = format!("client_killed_at_{}_{times}", place.replace('.', "_"));
        tests.push((
            name,
            Box::new(move || {
                client_dies(place, times);
                true
            }),
        ));
    }
    for (place, times) in LISTENER_STEPS {
        let name = format!("listener_killed_at_{}_{times}", place.replace('.', "_"));
        tests.push((
            name,
            Box::new(move || {
                listener_dies(place, times);
                true
            }),
        ));
    }
    runner::run(&tests)
}

fn soon() -> Deadline {
    Deadline::At(now().after(PATIENCE))
}

fn message(index: usize) -> Vec<u8> {
    vec![index as u8 + 1; LENGTHS[index]]
}

fn start(role: &str, with: &str, doom: Option<(&str, u32)>) -> Child {
    let program = std::env::current_exe().expect("a running program has a path");
    let mut command = Command::new(program);
    command.args(["--role", role, with]);
    if let Some((place, times)) = doom.filter(|(place, _)| *place != "none") {
        command.env("BILLIARD_FAILPOINT", format!("{place}:{times}"));
    }
    command.spawn().expect("a process can be started")
}

/// Starts a player that inherits a descriptor, which nobody else keeps.
fn start_with(role: &str, fd: OwnedFd, doom: Option<(&str, u32)>) -> Child {
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).expect("an open descriptor");
    start(role, &fd.as_raw_fd().to_string(), doom)
}

/// Waits for a player. Whether it has played to the end; otherwise it was killed.
fn ended(child: &mut Child, what: &str) -> bool {
    let end = soon();
    loop {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            assert!(status.success() || status.signal() == Some(9), "{what}: {status}");
            return status.success();
        }
        if end.passed() {
            let _ = child.kill();
            eprintln!("{what}: a player hangs");
            std::process::abort();
        }
        let _ = poll::readable(&[], Deadline::from_seconds(Some(0.001)), None);
    }
}

fn address_of(text: &str) -> Address {
    text.parse().map_or_else(|_| Address::Unix(text.into()), Address::Tcp)
}

/// The address of a listener, as [`address_of`] reads it.
fn text_of(address: &Address) -> String {
    match address {
        Address::Unix(path) => path.to_str().expect("a path of letters").to_owned(),
        Address::Tcp(address) => address.to_string(),
    }
}

fn free_addresses() -> [Address; 2] {
    let path = std::env::temp_dir().join(format!("billiard-conn-crash-{}", pid()));
    [Address::Unix(path), Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))]
}

fn play(role: &str, with: &str) {
    let inherited = || {
        let fd = claim(with.parse().expect("a number")).expect("an inherited descriptor");
        Connection::over(fd).expect("a connection")
    };
    match role {
        "send" => {
            let mut conn = inherited();
            for index in 0..LENGTHS.len() {
                assert!(conn.send(&message(index), soon()).expect("somebody receives"));
            }
        }
        "receive" => {
            let mut conn = inherited();
            for index in 0..LENGTHS.len() {
                assert_eq!(conn.receive(soon()).expect("sent whole"), Received::Message(message(index)));
            }
        }
        "client" => {
            let conn = connect(&address_of(with), Some(KEY), Md5Policy::Refused, soon()).expect("let in");
            let mut conn = conn.expect("let in soon");
            conn.send(b"hello", soon()).expect("somebody receives");
            assert_eq!(conn.receive(soon()).expect("an answer"), Received::Message(b"hello back".to_vec()));
        }
        "turned away" => {
            // Some are let in before the listener dies. It says nothing more to those either.
            let outcome = connect(&address_of(with), Some(KEY), Md5Policy::Refused, soon())
                .and_then(|conn| conn.expect("the end is seen soon").receive(soon()));
            let error = outcome.expect_err("nobody says anything");
            assert!(is_end(&error), "{error:?}");
        }
        "listener" => {
            let [unix, tcp] = free_addresses();
            let wanted = if with == "unix" { unix } else { tcp };
            let mut listener =
                Listener::bind(&wanted, Some(KEY), Md5Policy::Refused).expect("a free address");
            println!("{}", text_of(listener.address()));
            while listener.accept(Deadline::Never).is_ok() {}
        }
        other => panic!("there is no role {other:?}"),
    }
}

/// Whether this is how the death of the peer looks.
fn is_end(error: &ConnError) -> bool {
    match error {
        ConnError::Closed | ConnError::Torn { .. } | ConnError::Auth(AuthError::HungUp) => true,
        ConnError::Os { source, .. } => {
            matches!(source.kind(), BrokenPipe | ConnectionReset | ConnectionRefused)
        }
        _ => false,
    }
}

fn inside_a_message(role: &str, place: &str, times: u32) {
    for ends in [pipe, duplex] {
        let what = format!("{role} killed at {place}:{times}");
        let (reader, writer) = ends().expect("descriptors");
        let doom = Some((place, times));
        let mut whole = 0;
        let (mut child, outcome) = if role == "send" {
            let mut child = start_with(role, writer.into_descriptor(), doom);
            let mut reader = reader;
            if place != "none" {
                // Nobody makes room until it is dead, so that it cannot but send a part.
                ended(&mut child, &what);
            }
            let outcome = loop {
                match reader.receive(soon()) {
                    Ok(Received::Message(bytes)) => {
                        assert!(bytes == message(whole), "{what}: message {whole} is torn");
                        whole += 1;
                    }
                    Ok(Received::Paused(pause)) => panic!("{what}: nothing comes any more: {pause:?}"),
                    Err(error) => break error,
                }
            };
            (child, Some(outcome))
        } else {
            let mut child = start_with(role, reader.into_descriptor(), doom);
            let mut writer = writer;
            let outcome = (0..LENGTHS.len()).find_map(|index| {
                if index == LONG && place == "conn.receiving" {
                    let part = [Head::of(LENGTHS[index]).as_bytes(), &message(index)[..10_000]].concat();
                    assert_eq!(rustix::io::write(&writer, &part), Ok(part.len()), "{what}");
                    ended(&mut child, &what);
                }
                let sent = writer.send(&message(index), soon());
                whole += usize::from(sent.is_ok());
                assert!(!matches!(sent, Ok(false)), "{what}: nobody receives, and nobody says so");
                sent.err()
            });
            (child, outcome)
        };
        let complete = ended(&mut child, &what);
        assert_eq!(complete, place == "none", "{what}");
        assert_eq!(complete, whole == LENGTHS.len(), "{what}: {whole} messages");
        match (role, outcome) {
            ("send", Some(ConnError::Closed)) => assert!(complete, "{what}: no part of a message was left"),
            ("send", Some(ConnError::Torn { got, want })) => {
                assert!(!complete && got < want && want == LENGTHS[whole] as u64, "{what}: {got} of {want}");
            }
            (_, Some(ConnError::Os { source, .. })) => assert_eq!(source.kind(), BrokenPipe, "{what}"),
            (_, None) => assert!(complete, "{what}"),
            (_, Some(other)) => panic!("{what}: {other:?}"),
        }
    }
}

fn client_dies(place: &str, times: u32) {
    for address in free_addresses() {
        let what = format!("a client of {address:?} killed at {place}:{times}");
        let mut listener = Listener::bind(&address, Some(KEY), Md5Policy::Refused).expect("a free address");
        let with = text_of(listener.address());
        let doomed = (0..3).map(|_| start("client", &with, Some((place, times))));
        let sound = (0..2).map(|_| start("client", &with, None));
        let mut players: Vec<_> = doomed.chain(sound).collect();
        let (mut served, mut gone) = (0, 0);
        while served + gone < players.len() {
            assert_eq!(wait(&[&listener], soon()).expect("a sound listener"), [0], "{what}");
            match listener.accept(soon()) {
                Ok(Some(mut conn)) => match conn.receive(soon()) {
                    Ok(Received::Message(hello)) => {
                        assert_eq!(hello, b"hello", "{what}");
                        conn.send(b"hello back", soon()).expect("somebody receives");
                        served += 1;
                    }
                    // The last thing it said had let it in.
                    Err(error) if is_end(&error) => gone += 1,
                    other => panic!("{what}: {other:?}"),
                },
                Err(ConnError::Auth(AuthError::HungUp)) => gone += 1,
                other => panic!("{what}: {other:?}"),
            }
        }
        assert_eq!((served, gone), (2, 3), "{what}");
        for (index, player) in players.iter_mut().enumerate() {
            assert_eq!(ended(player, &what), index >= 3, "{what}: player {index}");
        }
    }
}

fn listener_dies(place: &str, times: u32) {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    for kind in ["unix", "tcp"] {
        let what = format!("a listener ({kind}) killed at {place}:{times}");
        let program = std::env::current_exe().expect("a running program has a path");
        let mut listener = Command::new(program)
            .args(["--role", "listener", kind])
            .env("BILLIARD_FAILPOINT", format!("{place}:{times}"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process can be started");
        let mut with = String::new();
        let said = listener.stdout.take().expect("it is piped");
        BufReader::new(said).read_line(&mut with).expect("the listener says where it is");
        let with = with.trim_end();
        // One more says nothing, so that the listener is among several visitors when it dies.
        let silent: OwnedFd = match address_of(with) {
            Address::Unix(path) => std::os::unix::net::UnixStream::connect(path).expect("it listens").into(),
            Address::Tcp(address) => std::net::TcpStream::connect(address).expect("it listens").into(),
        };
        let mut clients: Vec<_> = (0..4).map(|_| start("turned away", with, None)).collect();
        assert!(!ended(&mut listener, &what), "{what}: it was not killed");
        let mut quiet = Connection::over(silent).expect("a connection");
        let end = loop {
            match quiet.receive(soon()) {
                Ok(Received::Message(_)) => {}
                Ok(Received::Paused(pause)) => panic!("{what}: its end is not seen: {pause:?}"),
                Err(error) => break error,
            }
        };
        assert!(is_end(&end), "{what}: {end:?}");
        for client in &mut clients {
            assert!(ended(client, &what), "{what}: a client was killed");
        }
        if let Address::Unix(path) = address_of(with) {
            std::fs::remove_file(path).expect("who is killed tidies nothing up");
        }
    }
}
