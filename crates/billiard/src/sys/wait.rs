//! How waits end, whatever is waited for.

use super::poll::Woken;

/// One attempt to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait<T = ()> {
    /// What was waited for.
    Ready(T),
    /// The deadline passed first.
    TimedOut,
    /// A signal wants to be handled: see to it, and wait again with the same deadline.
    Interrupted,
}

impl<T> Wait<T> {
    /// The same end, with something else to show for it.
    pub fn map<U>(self, other: impl FnOnce(T) -> U) -> Wait<U> {
        match self {
            Self::Ready(value) => Wait::Ready(other(value)),
            Self::TimedOut => Wait::TimedOut,
            Self::Interrupted => Wait::Interrupted,
        }
    }
}

impl From<Woken> for Wait {
    fn from(woken: Woken) -> Self {
        match woken {
            Woken::Ready => Self::Ready(()),
            Woken::TimedOut => Self::TimedOut,
            Woken::Interrupted => Self::Interrupted,
        }
    }
}
