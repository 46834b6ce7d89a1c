//! What Rust programs say to each other: a call of an object's method, and what came of it. Pure, total, and nothing of the
//! peer's is run. Programs in Python say the same as pickles: see [`Request`](super::Request).

/// Why bytes are no call, or a call no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// They end too early.
    #[error("the message ends inside of a name; the peer sent something cut off, or speaks another protocol")]
    Cut,
    /// A name is no text.
    #[error("a name is no UTF-8; the peer speaks another protocol")]
    NoText,
    /// The first byte says nothing that is known.
    #[error("an answer begins with {0}, which means nothing; the peer speaks another protocol")]
    Unknown(u8),
    /// It does not fit.
    #[error("a name of {0} bytes is too long; shorten it to {most} at most", most = NAME)]
    TooLong(usize),
}

/// The most bytes that the name of an object or of a method has.
const NAME: usize = u8::MAX as usize;

/// A call of an object's method.
///
/// ```
/// use billiard::manager::Call;
///
/// let call = Call { object: "counter", method: "add", body: b"5" };
/// assert_eq!(Call::read(&call.to_bytes()?)?, call);
/// # Ok::<(), billiard::manager::CallError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The name of the object.
    pub object: &'a str,
    /// The name of the method.
    pub method: &'a str,
    /// What it is called with; object and caller know what that means.
    pub body: &'a [u8],
}

impl<'a> Call<'a> {
    /// As it goes over the wire.
    ///
    /// # Errors
    /// A name is longer than 255 bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, CallError> {
        let mut bytes = Vec::with_capacity(self.object.len() + self.method.len() + self.body.len() + 2);
        for name in [self.object, self.method] {
            bytes.push(u8::try_from(name.len()).map_err(|_| CallError::TooLong(name.len()))?);
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes.extend_from_slice(self.body);
        Ok(bytes)
    }

    /// Reads a call.
    ///
    /// # Errors
    /// It is none.
    pub fn read(bytes: &'a [u8]) -> Result<Self, CallError> {
        let (object, rest) = name(bytes)?;
        let (method, body) = name(rest)?;
        Ok(Self { object, method, body })
    }
}

fn name(bytes: &[u8]) -> Result<(&str, &[u8]), CallError> {
    let (len, rest) = bytes.split_first().ok_or(CallError::Cut)?;
    let (name, rest) = rest.split_at_checked(usize::from(*len)).ok_or(CallError::Cut)?;
    Ok((std::str::from_utf8(name).map_err(|_| CallError::NoText)?, rest))
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// What the method returns.
    Value(Vec<u8>),
    /// Why the method did not succeed.
    Failed(String),
    /// There is no object of that name.
    NoObject,
    /// The object has no method of that name.
    NoMethod,
    /// The server could not read the call.
    NoCall,
}

impl Reply {
    /// As it goes over the wire: a byte that says what it is, and what comes with it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, body) = match self {
            Self::Value(body) => (0, body.as_slice()),
            Self::Failed(text) => (1, text.as_bytes()),
            Self::NoObject => (2, [].as_slice()),
            Self::NoMethod => (3, [].as_slice()),
            Self::NoCall => (4, [].as_slice()),
        };
        let mut bytes = Vec::with_capacity(body.len() + 1);
        bytes.push(kind);
        bytes.extend_from_slice(body);
        bytes
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// It is none.
    pub fn read(bytes: &[u8]) -> Result<Self, CallError> {
        let (kind, body) = bytes.split_first().ok_or(CallError::Cut)?;
        Ok(match kind {
            0 => Self::Value(body.to_vec()),
            // It is for people: what cannot be read is shown as such.
            1 => Self::Failed(String::from_utf8_lossy(body).into_owned()),
            2 => Self::NoObject,
            3 => Self::NoMethod,
            4 => Self::NoCall,
            other => return Err(CallError::Unknown(*other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_cut_off_or_no_text_is_no_call() {
        for bytes in [b"".as_slice(), b"\x01", b"\x01a", b"\x01a\x02b", b"\xffabc"] {
            assert_eq!(Call::read(bytes), Err(CallError::Cut));
        }
        assert_eq!(Call::read(b"\x01\xff\x00"), Err(CallError::NoText));
        assert_eq!(Reply::read(b""), Err(CallError::Cut));
        assert_eq!(Reply::read(b"\x05"), Err(CallError::Unknown(5)));
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let long = "x".repeat(256);
        let call = Call { object: &long, method: "", body: b"" };
        assert_eq!(call.to_bytes(), Err(CallError::TooLong(256)));
        assert!(Call { object: &long[1..], ..call }.to_bytes().is_ok());
    }

    proptest! {
        #[test]
        fn calls_are_read_as_they_were_written(object in ".{0,60}", method in ".{0,60}", body: Vec<u8>) {
            let call = Call { object: &object, method: &method, body: &body };
            let bytes = call.to_bytes().unwrap();
            prop_assert_eq!(Call::read(&bytes), Ok(call));
        }

        #[test]
        fn replies_are_read_as_they_were_written(kind in 0..5_u8, body: Vec<u8>, text in ".{0,60}") {
            let reply = match kind {
                0 => Reply::Value(body),
                1 => Reply::Failed(text),
                2 => Reply::NoObject,
                3 => Reply::NoMethod,
                _ => Reply::NoCall,
            };
            prop_assert_eq!(Reply::read(&reply.to_bytes()), Ok(reply));
        }

        #[test]
        fn whatever_comes_is_survived(bytes: Vec<u8>) {
            if let Ok(call) = Call::read(&bytes) {
                prop_assert_eq!(call.to_bytes().unwrap(), bytes.clone());
            }
            let _ = Reply::read(&bytes);
        }
    }
}
