//! The Python classes of locks and semaphores: what each has of its own, for speed.

use billiard::sync::Semaphore;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::python;
use crate::semlock::{RECURSIVE_MUTEX, SEMAPHORE, SemLock};

/// What every one of the classes below has of its own, although it could inherit it: the interpreter calls a method without
/// detours only if it belongs to the very class of the object.
macro_rules! lock_class {
    ($class:ident($($value:ident)?), $signature:literal, $($rest:tt)*) => {
        #[pymethods]
        impl $class {
            #[new]
            #[pyo3(signature = (*args: "object", **kwargs: "object"), text_signature = $signature)]
            fn new(
                args: &Bound<'_, PyTuple>,
                kwargs: Option<&Bound<'_, PyDict>>,
            ) -> PyClassInitializer<Self> {
                // They belong to `__init__`.
                let _ = (args, kwargs);
                Self::fresh()
            }

            #[pyo3(signature = ($($value = 1,)? ctx = None))]
            fn __init__(
                slf: &Bound<'_, Self>,
                $($value: i64,)?
                ctx: Option<&Bound<'_, PyAny>>,
            ) -> PyResult<()> {
                let _ = ctx;
                Self::init(Self::base(slf).get() $(, $value)?)
            }

            /// Acquire it.
            ///
            /// Args:
            ///     block: False to return at once.
            ///     timeout: Seconds to wait; None and inf wait for ever, negative is 0.
            ///
            /// Returns:
            ///     Whether it was acquired.
            #[pyo3(
                signature = (block = None, timeout = None),
                text_signature = "($self, /, block=True, timeout=None)"
            )]
            fn acquire(
                slf: &Bound<'_, Self>,
                block: Option<&Bound<'_, PyAny>>,
                timeout: Option<f64>,
            ) -> PyResult<bool> {
                SemLock::acquire_for(Self::base(slf), block, timeout)
            }

            /// Release it.
            ///
            /// Raises:
            ///     AssertionError: It is a recursive lock that the calling thread does not have.
            ///     ValueError: It is at its maximum.
            fn release(slf: &Bound<'_, Self>) -> PyResult<()> {
                Self::base(slf).get().give()
            }

            fn __enter__(slf: &Bound<'_, Self>) -> PyResult<bool> {
                SemLock::enter(Self::base(slf))
            }

            #[pyo3(signature = (kind = None, value = None, traceback = None))]
            fn __exit__(
                slf: &Bound<'_, Self>,
                kind: Option<&Bound<'_, PyAny>>,
                value: Option<&Bound<'_, PyAny>>,
                traceback: Option<&Bound<'_, PyAny>>,
            ) -> PyResult<()> {
                // Named, since a tuple of them would have to be made.
                let _ = (kind, value, traceback);
                Self::base(slf).get().give()
            }

            $($rest)*
        }
    };
}

/// A lock. Any thread of any process may release it.
///
/// If the process that has acquired it dies, the lock goes to whoever waits for it or asks next; then `abandoned` is true,
/// and a warning is logged.
#[pyclass(frozen, subclass, extends = SemLock, name = "Lock", module = "billiard.synchronize")]
#[derive(Debug)]
pub(crate) struct PyLock;

impl PyLock {
    fn init(this: &SemLock) -> PyResult<()> {
        this.make(SEMAPHORE, 1, 1, true)
    }

    fn fresh() -> PyClassInitializer<Self> {
        PyClassInitializer::from(SemLock::default()).add_subclass(Self)
    }

    fn base<'a, 'py>(slf: &'a Bound<'py, Self>) -> &'a Bound<'py, SemLock> {
        slf.as_super()
    }
}

lock_class! { PyLock(), "(ctx=None)",
    fn __repr__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        python::synchronize(slf.py(), "_describe_lock")?.call1((slf,))
    }
}

/// A lock that the thread which has it may acquire again, and that only this thread releases.
///
/// If its process dies, the lock goes on as a `Lock` does.
#[pyclass(frozen, subclass, extends = SemLock, name = "RLock", module = "billiard.synchronize")]
#[derive(Debug)]
pub(crate) struct PyRLock;

impl PyRLock {
    fn init(this: &SemLock) -> PyResult<()> {
        this.make(RECURSIVE_MUTEX, 1, 1, true)
    }

    fn fresh() -> PyClassInitializer<Self> {
        PyClassInitializer::from(SemLock::default()).add_subclass(Self)
    }

    fn base<'a, 'py>(slf: &'a Bound<'py, Self>) -> &'a Bound<'py, SemLock> {
        slf.as_super()
    }
}

lock_class! { PyRLock(), "(ctx=None)",
    fn __repr__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        python::synchronize(slf.py(), "_describe_rlock")?.call1((slf,))
    }
}

/// A semaphore.
///
/// What a process has taken when it dies stays taken; `abandoned` tells how much that is.
///
/// Args:
///     value: How often it can be acquired before somebody releases it.
///
/// Raises:
///     OSError: The value is negative or above 2147483647, or no memory or descriptor is left.
#[pyclass(frozen, subclass, extends = SemLock, name = "Semaphore", module = "billiard.synchronize")]
#[derive(Debug)]
pub(crate) struct PySemaphore;

impl PySemaphore {
    fn init(this: &SemLock, value: i64) -> PyResult<()> {
        this.make(SEMAPHORE, value, i64::from(Semaphore::MOST), false)
    }

    fn fresh() -> PyClassInitializer<Self> {
        PyClassInitializer::from(SemLock::default()).add_subclass(Self)
    }

    fn base<'a, 'py>(slf: &'a Bound<'py, Self>) -> &'a Bound<'py, SemLock> {
        slf.as_super()
    }
}

lock_class! { PySemaphore(value), "(value=1, ctx=None)",
    /// Return how often it could be acquired now.
    fn get_value(slf: &Bound<'_, Self>) -> PyResult<u32> {
        Self::base(slf).get()._get_value()
    }

    fn __repr__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        python::synchronize(slf.py(), "_describe_semaphore")?.call1((slf,))
    }
}

/// A semaphore that is never above the value that it was made with.
///
/// Args:
///     value: That value.
///
/// Raises:
///     OSError: The value is negative or above 2147483647, or no memory or descriptor is left.
#[pyclass(frozen, subclass, extends = PySemaphore, name = "BoundedSemaphore", module = "billiard.synchronize")]
#[derive(Debug)]
pub(crate) struct PyBoundedSemaphore;

impl PyBoundedSemaphore {
    fn init(this: &SemLock, value: i64) -> PyResult<()> {
        this.make(SEMAPHORE, value, value, false)
    }

    fn fresh() -> PyClassInitializer<Self> {
        PySemaphore::fresh().add_subclass(Self)
    }

    fn base<'a, 'py>(slf: &'a Bound<'py, Self>) -> &'a Bound<'py, SemLock> {
        slf.as_super().as_super()
    }
}

lock_class! { PyBoundedSemaphore(value), "(value=1, ctx=None)",
    fn __repr__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        python::synchronize(slf.py(), "_describe_bounded")?.call1((slf,))
    }
}
