//! What a server has: objects, by name.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::call::{Call, Reply};

/// How long a method may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It never waits for anything, and takes moments: it is called where all clients are answered.
    Quick,
    /// It may wait or compute: whoever calls it gets a thread.
    MayWait,
}

/// Why a method has no value to return.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such method.
    #[error("there is no such method")]
    NoMethod,
    /// It did not succeed; the text, which goes to the caller, says why.
    #[error("{0}")]
    Failed(String),
}

/// Something that clients call methods of, several at a time. One that panics has failed, and goes on being called.
pub trait Object: Send + Sync {
    /// Calls a method.
    ///
    /// # Errors
    /// There is none of that name, or it did not succeed.
    fn call(&self, method: &str, body: &[u8]) -> Result<Vec<u8>, Refusal>;

    /// How long a method may take. A wrong [`Pace::Quick`] keeps all clients waiting.
    fn pace(&self, method: &str) -> Pace {
        let _ = method;
        Pace::MayWait
    }
}

/// The objects of a server, by name.
///
/// ```
/// use billiard::manager::{Object, Refusal, Registry};
///
/// struct Shout;
///
/// impl Object for Shout {
///     fn call(&self, method: &str, body: &[u8]) -> Result<Vec<u8>, Refusal> {
///         if method == "upper" { Ok(body.to_ascii_uppercase()) } else { Err(Refusal::NoMethod) }
///     }
/// }
///
/// let registry = Registry::new().with("shout", Shout);
/// assert_eq!(registry.names().collect::<Vec<_>>(), ["shout"]);
/// ```
#[derive(Default)]
pub struct Registry {
    objects: HashMap<String, Box<dyn Object>>,
}

impl Registry {
    /// Without objects.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more object. One that had the name before is gone.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, object: impl Object + 'static) -> Self {
        self.objects.insert(name.into(), Box::new(object));
        self
    }

    /// The names of the objects, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.objects.keys().map(String::as_str)
    }

    /// How long a call may take. What is no call is answered at once.
    pub(super) fn pace(&self, call: &[u8]) -> Pace {
        let Ok(call) = Call::read(call) else { return Pace::Quick };
        let Some(object) = self.objects.get(call.object) else { return Pace::Quick };
        // Who cannot even say that may do anything.
        catch_unwind(AssertUnwindSafe(|| object.pace(call.method))).unwrap_or(Pace::MayWait)
    }

    /// Does what a call asks for.
    pub(super) fn answer(&self, call: &[u8]) -> Reply {
        let Ok(call) = Call::read(call) else { return Reply::NoCall };
        let Some(object) = self.objects.get(call.object) else { return Reply::NoObject };
        // What the object itself is afterwards is its own affair; nothing else is touched.
        match catch_unwind(AssertUnwindSafe(|| object.call(call.method, call.body))) {
            Ok(Ok(value)) => Reply::Value(value),
            Ok(Err(Refusal::NoMethod)) => Reply::NoMethod,
            Ok(Err(Refusal::Failed(text))) => Reply::Failed(text),
            Err(_) => Reply::Failed(format!("{:?} has panicked in {:?}", call.object, call.method)),
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}
