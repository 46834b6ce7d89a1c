//! The client of a server in Rust.

use super::call::{Call, CallError, Reply};
use super::line::{Heard, Line};
use crate::conn::{Address, ConnError, Md5Policy, connect};
use crate::sys::Deadline;

/// Why a call has no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The server has no object of that name.
    #[error("the server has no object {0:?}")]
    NoObject(String),
    /// The object has no method of that name.
    #[error("{object:?} has no method {method:?}")]
    NoMethod {
        /// The object.
        object: String,
        /// The method.
        method: String,
    },
    /// The method says why.
    #[error("{0}")]
    Failed(String),
    /// The deadline has passed before the answer came. It would be taken for that of the next call: connect anew.
    #[error("there was no answer in time; connect again before calling anything else")]
    TimedOut,
    /// An earlier call has ended in a way after which nothing can follow.
    #[error("an earlier call was given up; connect again")]
    Broken,
    /// The server took the call for none.
    #[error("the server did not understand the call; it speaks another protocol")]
    NotUnderstood,
    /// What was said, on either side, is no call or no answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The server is gone, or the connection is.
    #[error(transparent)]
    Conn(#[from] ConnError),
}

/// A connection to a [`Server`](super::Server), on which calls and answers take turns.
///
/// # Fork
/// A forked copy shares the connection, and must not use it.
#[derive(Debug)]
pub struct Client {
    /// Gone once nobody knows what would come next.
    line: Option<Line>,
}

impl Client {
    /// Connects. None: the deadline has passed first.
    ///
    /// # Blocking
    /// Until the server has let us in. Signals do not interrupt it.
    ///
    /// # Errors
    /// Nobody listens there, or it holds another key.
    pub fn connect(
        address: &Address,
        key: Option<&[u8]>,
        deadline: Deadline,
    ) -> Result<Option<Self>, ConnError> {
        let Some(connection) = connect(address, key, Md5Policy::Refused, deadline)? else { return Ok(None) };
        let line = Line::over(connection.into_descriptor())
            .map_err(|source| ConnError::Os { doing: "connect", source })?;
        Ok(Some(Self { line: Some(line) }))
    }

    /// Calls a method of an object, and waits for what comes of it.
    ///
    /// # Blocking
    /// Until the answer is there, or the deadline. Signals do not interrupt it.
    ///
    /// # Errors
    /// There is no such object or method, or it did not succeed: other calls can follow. Or there is no answer: then none can.
    pub fn call(
        &mut self,
        object: &str,
        method: &str,
        body: &[u8],
        deadline: Deadline,
    ) -> Result<Vec<u8>, AskError> {
        let call = Call { object, method, body }.to_bytes()?;
        let mut line = self.line.take().ok_or(AskError::Broken)?;
        let reply = ask(&mut line, &call, deadline)?;
        self.line = Some(line);
        match reply {
            Reply::Value(value) => Ok(value),
            Reply::Failed(text) => Err(AskError::Failed(text)),
            Reply::NoObject => Err(AskError::NoObject(object.to_owned())),
            Reply::NoMethod => {
                Err(AskError::NoMethod { object: object.to_owned(), method: method.to_owned() })
            }
            Reply::NoCall => Err(AskError::NotUnderstood),
        }
    }
}

fn ask(line: &mut Line, call: &[u8], deadline: Deadline) -> Result<Reply, AskError> {
    if !line.send(call, deadline)? {
        return Err(AskError::TimedOut);
    }
    if !line.expect_soon()? {
        loop {
            match line.hear(deadline, None)? {
                Heard::Message => break,
                Heard::Interrupted => {}
                Heard::TimedOut => return Err(AskError::TimedOut),
            }
        }
    }
    let reply = Reply::read(line.message())?;
    line.take();
    Ok(reply)
}
