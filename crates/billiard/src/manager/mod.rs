//! An object server: many clients, each of which asks one question after the other, and gets an answer to each.
//!
//! A [`Hall`] is where clients sit that ask what can be answered at once: one thread answers all of them, and none of them can
//! keep it waiting. A client that asks for something that may take long [leaves](Hall::leave) the hall with its [`Line`], for a
//! thread of its own. What a [`Request`] wants can be read without unpickling anything. Who the clients are is settled before
//! they come in, by a [`Doorman`](crate::conn::Doorman). `README.md` beside this file tells why it is so.
//!
//! A Rust program need not put that together itself: a [`Server`] does, over the objects of a [`Registry`], and a [`Client`]
//! calls them.
//!
//! ```
//! use std::os::unix::net::UnixStream;
//! use billiard::manager::{Hall, Line, Look};
//! use billiard::sys::Deadline;
//! use billiard::sys::stream::Piece;
//! use billiard::conn::frame::Head;
//!
//! let hall = Hall::new()?;
//! let (client, server) = UnixStream::pair()?;
//! hall.adopt(server.into())?;
//! let mut client = Line::over(client.into())?;
//! client.send(b"shout", Deadline::Never)?;
//!
//! let mut ready = Vec::new();
//! hall.wait(&mut ready, Deadline::Never, None)?;
//! for seat in ready {
//!     while hall.look(seat)? == Look::Question {
//!         let answer = hall.question(seat, |question| question.to_ascii_uppercase()).unwrap_or_default();
//!         hall.answer(seat, &mut [Piece::of(Head::of(answer.len()).as_bytes()), Piece::of(&answer)])?;
//!     }
//! }
//! client.hear(Deadline::Never, None)?;
//! assert_eq!(client.message(), b"SHOUT");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod call;
mod client;
mod hall;
mod line;
mod registry;
mod request;
mod server;

pub use call::{Call, CallError, Reply};
pub use client::{AskError, Client};
pub use hall::{Hall, Look, Seat};
pub use line::{Found, Heard, Line};
pub use registry::{Object, Pace, Refusal, Registry};
pub use request::{Request, RequestError};
pub use server::{Server, Settings};
