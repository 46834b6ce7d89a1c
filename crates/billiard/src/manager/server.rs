//! The server of a Rust program: it lets in who holds the key, and calls what they ask for.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::hall::{Hall, Look, Seat};
use super::line::{Heard, Line};
use super::registry::{Pace, Registry};
use crate::conn::frame::Head;
use crate::conn::{Address, Admitted, ConnError, Listener, Md5Policy, PATIENCE};
use crate::sys::stream::Piece;
use crate::sys::{Deadline, EventFd, Identity, me, poll, thread};

/// Threads of ours hold an answer and a few frames; what a method needs, the thread of its client has.
const STACK: usize = 2 << 20;
/// So long nobody is let in where there is no descriptor left.
const PAUSE: f64 = 0.1;

/// Whom a server lets in, and how much it takes from each.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What clients have to hold; without it everybody may come in.
    pub key: Option<Vec<u8>>,
    /// How long one may take to prove it.
    pub patience: Duration,
    /// How long a call may be, in bytes. Who announces a longer one is shown out.
    pub longest_call: u64,
    /// How many clients there may be. One more is shown out.
    pub most_clients: usize,
}

impl Default for Settings {
    /// No key, 20 seconds, 64 MiB, 1024 clients.
    fn default() -> Self {
        Self { key: None, patience: PATIENCE, longest_call: 64 << 20, most_clients: 1024 }
    }
}

/// Serves objects to clients, in threads of its own, until it is dropped.
///
/// One thread lets in who holds the key; several visitors prove it at a time, and nothing that they say before has any effect
/// on anybody else. Another one answers, in a [`Hall`], all calls that are [`Pace::Quick`]. A client that calls anything else
/// gets a thread for itself, from then on.
///
/// ```
/// use billiard::conn::Address;
/// use billiard::manager::{Client, Object, Refusal, Registry, Server, Settings};
/// use billiard::sys::Deadline;
///
/// struct Shout;
///
/// impl Object for Shout {
///     fn call(&self, method: &str, body: &[u8]) -> Result<Vec<u8>, Refusal> {
///         if method == "upper" { Ok(body.to_ascii_uppercase()) } else { Err(Refusal::NoMethod) }
///     }
/// }
///
/// let settings = Settings { key: Some(b"secret".to_vec()), ..Settings::default() };
/// let anywhere = Address::Tcp("127.0.0.1:0".parse()?);
/// let server = Server::start(&anywhere, Registry::new().with("shout", Shout), settings)?;
///
/// let client = Client::connect(server.address(), Some(b"secret"), Deadline::Never)?;
/// let answer = client.expect("there is no deadline").call("shout", "upper", b"hello", Deadline::Never)?;
/// assert_eq!(answer, b"HELLO");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Fork
/// A child has none of the threads. Its copies of the sockets keep clients from seeing the server end, so it should end soon,
/// or become another program.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    address: Address,
    threads: Vec<JoinHandle<()>>,
    owner: Identity,
}

#[derive(Debug)]
struct Shared {
    hall: Hall,
    registry: Registry,
    settings: Settings,
    stopping: AtomicBool,
    /// Rings for the one at the door.
    bell: EventFd,
    /// The clients that have threads of their own: what is needed to hang up on them.
    apart: Mutex<HashMap<u64, OwnedFd>>,
}

impl Server {
    /// Begins to serve.
    ///
    /// # Errors
    /// The address is taken, or not ours; no descriptor or thread is left.
    pub fn start(address: &Address, registry: Registry, settings: Settings) -> io::Result<Self> {
        let listener = Listener::bind(address, settings.key.as_deref(), Md5Policy::Refused)?
            .with_patience(settings.patience);
        let address = listener.address().clone();
        let shared = Arc::new(Shared {
            hall: Hall::new()?.with_limit(settings.longest_call),
            registry,
            settings,
            stopping: AtomicBool::new(false),
            bell: EventFd::new()?,
            apart: Mutex::default(),
        });
        // If the second cannot be started, dropping the server ends the first.
        let mut server = Self { shared, address, threads: Vec::new(), owner: me() };
        let shared = Arc::clone(&server.shared);
        server.threads.push(thread::spawn("billiard-door", STACK, move || let_in(listener, &shared))?);
        let shared = Arc::clone(&server.shared);
        server.threads.push(thread::spawn("billiard-hall", STACK, move || shared.serve())?);
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// How many clients there are.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shared.clients()
    }
}

impl Drop for Server {
    /// Hangs up on everybody. Calls that are being answered go on to their end, and their answers go nowhere.
    fn drop(&mut self) {
        // FORK: a child has neither the threads nor the right to hang up.
        if !self.owner.is_me() {
            return;
        }
        self.shared.stop();
        let here = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // A method may be the one that drops it.
            if thread.thread().id() != here {
                // That one has panicked is told already; nothing of it is needed.
                let _ = thread.join();
            }
        }
        // Who was let in at the last moment.
        self.shared.hall.clear();
    }
}

/// The work of the thread at the door.
fn let_in(mut listener: Listener, shared: &Shared) {
    while !shared.is_stopping() {
        match listener.admit(shared.bell.as_fd(), Deadline::Never) {
            Ok(Admitted::Socket(socket)) => shared.seat(socket),
            Ok(Admitted::Paused(_)) => {}
            // As long as no descriptor is left the next one would fail at once.
            Err(ConnError::Os { .. }) => {
                let _ = poll::readable(&[shared.bell.as_fd()], Deadline::from_seconds(Some(PAUSE)), None);
            }
            // Somebody did not hold the key, which is that one's affair.
            Err(_) => {}
        }
    }
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    fn apart(&self) -> MutexGuard<'_, HashMap<u64, OwnedFd>> {
        self.apart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients(&self) -> usize {
        self.hall.len() + self.apart().len()
    }

    fn stop(&self) {
        let apart = self.apart();
        self.stopping.store(true, Ordering::Release);
        for socket in apart.values() {
            // One that has hung up itself is what was wanted.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
        drop(apart);
        self.bell.ring();
        self.hall.ring();
    }

    fn seat(&self, socket: OwnedFd) {
        if self.clients() < self.settings.most_clients {
            // Without a seat it sees that it was hung up on.
            let _ = self.hall.adopt(socket);
        }
    }

    /// The work of the thread in the hall.
    fn serve(self: &Arc<Self>) {
        let mut ready = Vec::new();
        // Who has asked again already; each gets one answer before anybody gets a second one.
        let mut again: VecDeque<Seat> = VecDeque::new();
        while !self.is_stopping() {
            ready.clear();
            if self.look_around(&mut ready, again.is_empty()).is_err() {
                // Nobody can be watched any more.
                self.stop();
            }
            for seat in again.drain(..).chain(ready.drain(..)).collect::<Vec<_>>() {
                if self.attend(seat) {
                    again.push_back(seat);
                }
            }
        }
        self.hall.clear();
    }

    fn look_around(&self, ready: &mut Vec<Seat>, may_sleep: bool) -> io::Result<()> {
        if !may_sleep {
            return self.hall.glance(ready).map(drop);
        }
        if !self.hall.expect_soon(ready)? {
            self.hall.wait(ready, Deadline::Never, None)?;
        }
        Ok(())
    }

    /// Answers one question, if there is one. Whether another one has come already.
    fn attend(self: &Arc<Self>, seat: Seat) -> bool {
        if !matches!(self.hall.look(seat), Ok(Look::Question)) {
            return false;
        }
        // Copied: nothing of an object's happens under the hall's lock.
        let Some(call) = self.hall.question(seat, <[u8]>::to_vec) else { return false };
        if self.registry.pace(&call) == Pace::MayWait {
            self.hand_over(seat);
            return false;
        }
        let answer = self.registry.answer(&call).to_bytes();
        let head = Head::of(answer.len());
        let said = self.hall.answer(seat, &mut [Piece::of(head.as_bytes()), Piece::of(&answer)]);
        said.unwrap_or(false)
    }

    /// Gives a client a thread for itself. Without one it is hung up on.
    fn hand_over(self: &Arc<Self>, seat: Seat) {
        let Some(line) = self.hall.leave(seat) else { return };
        let Ok(copy) = line.as_fd().try_clone_to_owned() else { return };
        {
            let mut apart = self.apart();
            if self.is_stopping() {
                return;
            }
            apart.insert(seat.number(), copy);
        }
        let shared = Arc::clone(self);
        let started = thread::spawn("billiard-client", STACK, move || {
            shared.converse(line);
            shared.apart().remove(&seat.number());
        });
        if started.is_err() {
            self.apart().remove(&seat.number());
        }
    }

    /// The work of a client's own thread, which begins with a question that was found.
    fn converse(&self, mut line: Line) {
        loop {
            match line.hear(Deadline::Never, None) {
                Ok(Heard::Message) => {}
                Ok(Heard::Interrupted | Heard::TimedOut) => continue,
                Err(_) => return,
            }
            let answer = self.registry.answer(line.message()).to_bytes();
            line.take();
            if !matches!(line.send(&answer, Deadline::Never), Ok(true)) {
                return;
            }
        }
    }
}
