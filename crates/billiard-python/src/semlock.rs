//! Locks and semaphores. What nobody disputes is done without letting go of the interpreter.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

use billiard::arena::Cell;
use billiard::sync::{Acquired, Lock, RLock, Semaphore, SyncError};
use billiard::sys::Deadline;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

use crate::account::Account;
use crate::errors::IntoPyErr;
use crate::locks::PyLock;
use crate::python;
use crate::wait::{self, Blocking, Wait};

/// As the original numbers them.
pub(crate) const RECURSIVE_MUTEX: i32 = 0;
pub(crate) const SEMAPHORE: i32 = 1;

/// Where a shared object lives, as it is told to another process: descriptor, position, length.
pub(crate) type Place = (RawFd, usize, usize);

pub(crate) fn place(cell: &Cell) -> PyResult<Place> {
    let parcel = cell.parcel().map_err(|error| SyncError::from(error).into_py_err())?;
    Ok((parcel.fd.as_raw_fd(), parcel.at, parcel.len))
}

pub(crate) fn received((fd, at, len): Place) -> PyResult<Cell> {
    Cell::receive(fd, at, len).map_err(|error| SyncError::from(error).into_py_err())
}

pub(crate) fn not_initialized(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!("{what} was not initialized: a subclass must call `super().__init__`"))
}

#[derive(Debug)]
enum Inner {
    Lock(Lock),
    RLock(RLock),
    Semaphore(Semaphore),
}

impl Inner {
    #[inline]
    fn try_fast(&self) -> bool {
        match self {
            Self::Lock(lock) => lock.try_fast(),
            Self::RLock(lock) => lock.try_fast(),
            Self::Semaphore(semaphore) => semaphore.try_acquire(),
        }
    }

    fn try_acquire(&self) -> Option<Acquired> {
        match self {
            Self::Lock(lock) => lock.try_acquire(),
            Self::RLock(lock) => lock.try_acquire(),
            Self::Semaphore(semaphore) => semaphore.try_acquire().then_some(Acquired::Regularly),
        }
    }

    fn acquire(&self, deadline: Deadline) -> Result<Wait<Acquired>, SyncError> {
        match self {
            Self::Lock(lock) => lock.acquire(deadline),
            Self::RLock(lock) => lock.acquire(deadline),
            Self::Semaphore(semaphore) => Ok(semaphore.acquire(deadline)?.map(|()| Acquired::Regularly)),
        }
    }

    #[inline]
    fn release(&self) -> Result<(), SyncError> {
        match self {
            Self::Lock(lock) => lock.release(),
            Self::RLock(lock) => lock.release(),
            Self::Semaphore(semaphore) => semaphore.release(),
        }
    }

    const fn cell(&self) -> &Cell {
        match self {
            Self::Lock(lock) => lock.cell(),
            Self::RLock(lock) => lock.lock().cell(),
            Self::Semaphore(semaphore) => semaphore.cell(),
        }
    }

    const fn lock(&self) -> Option<&Lock> {
        match self {
            Self::Lock(lock) => Some(lock),
            Self::RLock(lock) => Some(lock.lock()),
            Self::Semaphore(_) => None,
        }
    }
}

/// A lock or a semaphore between processes; usually one of the classes that inherit from it.
///
/// Args:
///     kind: 0 for a recursive lock, 1 for a semaphore.
///     value: How often it can be acquired before somebody releases it.
///     maxvalue: The value above which it cannot be released.
///     ctx: Ignored: it goes to children of every start method.
///
/// Raises:
///     OSError: There is no such value, or no memory or descriptor is left.
///     ValueError: There is no such kind.
#[pyclass(frozen, subclass, dict, weakref, module = "billiard.synchronize")]
#[derive(Debug, Default)]
pub(crate) struct SemLock {
    inner: OnceLock<Inner>,
    account: Account,
}

impl SemLock {
    #[inline]
    fn inner(&self) -> PyResult<&Inner> {
        self.inner.get().ok_or_else(|| not_initialized("the lock"))
    }

    fn fill(&self, inner: Inner) -> PyResult<()> {
        self.inner.set(inner).map_err(|_| PyRuntimeError::new_err("the lock is initialized already"))
    }

    #[inline]
    fn note(&self, inner: &Inner) {
        if matches!(inner, Inner::Semaphore(_)) {
            self.account.book(1);
        }
    }

    fn took(slf: &Bound<'_, Self>, acquired: Acquired) -> PyResult<()> {
        let this = slf.get();
        this.note(this.inner()?);
        if let Acquired::Abandoned { pid } = acquired {
            python::synchronize(slf.py(), "_tell_abandoned")?.call1((slf, pid))?;
        }
        Ok(())
    }

    /// Acquires it for the caller, without letting go of the interpreter if nobody else has it.
    #[inline]
    pub(crate) fn acquire_for(
        slf: &Bound<'_, Self>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<bool> {
        let this = slf.get();
        let inner = this.inner()?;
        if inner.try_fast() {
            this.note(inner);
            return Ok(true);
        }
        Self::acquire_after_all(slf, block, timeout)
    }

    #[cold]
    fn acquire_after_all(
        slf: &Bound<'_, Self>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<bool> {
        let inner = slf.get().inner()?;
        let at_once = timeout.is_some_and(|seconds| seconds <= 0.0);
        let acquired = if at_once || !block.map_or(Ok(true), |block| block.is_truthy())? {
            inner.try_acquire()
        } else {
            let deadline = wait::deadline(timeout)?;
            slf.py().wait_on_word(|| inner.acquire(deadline))?
        };
        if let Some(acquired) = acquired {
            Self::took(slf, acquired)?;
        }
        Ok(acquired.is_some())
    }

    /// As `with` does.
    pub(crate) fn enter(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Self::acquire_for(slf, None, None)
    }

    /// Releases it.
    #[inline]
    pub(crate) fn give(&self) -> PyResult<()> {
        let inner = self.inner()?;
        inner.release().map_err(IntoPyErr::into_py_err)?;
        if matches!(inner, Inner::Semaphore(_)) {
            self.account.book(-1);
        }
        Ok(())
    }

    /// Makes it what it is.
    pub(crate) fn make(&self, kind: i32, value: i64, maxvalue: i64, owned: bool) -> PyResult<()> {
        let number = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
        let made = match kind {
            RECURSIVE_MUTEX if value == 1 && maxvalue == 1 => RLock::new().map(Inner::RLock),
            RECURSIVE_MUTEX => Err(SyncError::Value { value: number(value), most: 1 }),
            SEMAPHORE if owned => Lock::new().map(Inner::Lock),
            SEMAPHORE => Semaphore::new(number(value), number(maxvalue)).map(Inner::Semaphore),
            _ => return Err(PyValueError::new_err("unrecognized kind")),
        };
        self.fill(made.map_err(IntoPyErr::into_py_err)?)
    }

    /// The lock, if it is one.
    pub(crate) fn lock(&self) -> Option<&Lock> {
        self.inner.get()?.lock()
    }

    /// Whether the calling thread has it.
    pub(crate) fn is_mine(&self) -> PyResult<bool> {
        Ok(match self.inner()? {
            Inner::Lock(lock) => lock.is_mine(),
            Inner::RLock(lock) => lock.lock().is_mine(),
            Inner::Semaphore(_) => self.account.is_mine(),
        })
    }

    /// Releases it as often as the calling thread, or its process, has it. Answers how often.
    pub(crate) fn release_all(&self) -> PyResult<u64> {
        let released = match self.inner()? {
            Inner::Lock(lock) => lock.release().map(|()| 1),
            Inner::RLock(lock) => lock.release_all().map(u64::from),
            Inner::Semaphore(_) => {
                let held = self.account.count().max(0).unsigned_abs();
                (0..held).try_for_each(|_| self.give())?;
                Ok(held)
            }
        };
        released.map_err(IntoPyErr::into_py_err)
    }

    /// Acquires it as often as `release_all` has said. A signal handler's exception does not end the wait; it is answered.
    pub(crate) fn acquire_again(slf: &Bound<'_, Self>, times: u64) -> PyResult<Option<PyErr>> {
        let (py, inner) = (slf.py(), slf.get().inner()?);
        let mut raised = None;
        let rounds = if matches!(inner, Inner::Semaphore(_)) { times } else { 1 };
        for _ in 0..rounds {
            let again = || match inner.lock() {
                Some(lock) => lock.acquire_returning(Deadline::Never),
                None => inner.acquire(Deadline::Never),
            };
            let (acquired, first) = py.finish_on_word(again)?;
            raised = raised.or(first);
            if let Some(acquired) = acquired {
                Self::took(slf, acquired)?;
            }
        }
        if let (Inner::RLock(lock), Ok(depth)) = (inner, u32::try_from(times)) {
            lock.restore(depth);
        }
        Ok(raised)
    }
}

#[pymethods]
impl SemLock {
    #[new]
    #[pyo3(signature = (*args: "object", **kwargs: "object"), text_signature = "(kind, value, maxvalue, ctx=None)")]
    fn new(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        // They belong to `__init__`.
        let _ = (args, kwargs);
        Self::default()
    }

    #[pyo3(signature = (kind, value, maxvalue, ctx = None))]
    fn __init__(&self, kind: i32, value: i64, maxvalue: i64, ctx: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let _ = ctx;
        self.make(kind, value, maxvalue, false)
    }

    /// Make it the one that another process has sent.
    ///
    /// Args:
    ///     place: Where it lives.
    ///     kind: What it is.
    ///
    /// Raises:
    ///     RuntimeError: There is no such thing there.
    ///     OSError: No descriptor is left.
    fn _receive(slf: &Bound<'_, Self>, place: Place, kind: i32) -> PyResult<()> {
        let cell = received(place)?;
        let found = match kind {
            RECURSIVE_MUTEX => RLock::from_cell(cell).map(Inner::RLock),
            SEMAPHORE if slf.is_instance_of::<PyLock>() => Lock::from_cell(cell).map(Inner::Lock),
            SEMAPHORE => Semaphore::from_cell(cell).map(Inner::Semaphore),
            _ => return Err(PyValueError::new_err("unrecognized kind")),
        };
        slf.get().fill(found.map_err(IntoPyErr::into_py_err)?)
    }

    /// The native object: this one.
    #[getter(_semlock)]
    fn native<'py>(slf: &Bound<'py, Self>) -> Bound<'py, Self> {
        slf.clone()
    }

    /// A name such as semaphores of the original have.
    #[staticmethod]
    fn _make_name(py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(python::synchronize(py, "_make_name")?.call0()?.unbind())
    }

    /// Remove the name of a semaphore of the original.
    ///
    /// Raises:
    ///     FileNotFoundError: Always: those of this package have none.
    #[staticmethod]
    fn _cleanup(py: Python<'_>, name: &str) -> PyResult<()> {
        python::synchronize(py, "sem_unlink")?.call1((name,)).map(drop)
    }

    /// Have `acquire` and `release`: every object has them from the start.
    #[expect(clippy::unused_self, reason = "a method of the original's, which subclasses may call")]
    const fn _make_methods(&self) {}

    /// Find a semaphore by its name or by its handle, as the original's native object does.
    ///
    /// Raises:
    ///     FileNotFoundError: There is none of this name: those of this package have no names.
    ///     ValueError: There is only a handle, which tells where it lies in its memory, but not in which.
    #[classmethod]
    #[pyo3(signature = (handle, kind, maxvalue, name))]
    fn _rebuild(
        cls: &Bound<'_, PyType>,
        handle: usize,
        kind: i32,
        maxvalue: i64,
        name: Option<&str>,
    ) -> PyResult<()> {
        let _ = (handle, kind, maxvalue);
        match name {
            Some(name) => Self::_cleanup(cls.py(), name),
            None => Err(PyValueError::new_err(
                "a handle alone does not lead to a lock: send the lock itself to the child that is started",
            )),
        }
    }

    fn __getstate__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        python::synchronize(slf.py(), "_state_of")?.call1((slf,))
    }

    fn __setstate__(slf: &Bound<'_, Self>, state: &Bound<'_, PyAny>) -> PyResult<()> {
        python::synchronize(slf.py(), "_set_state")?.call1((slf, state)).map(drop)
    }

    /// Where it lives.
    ///
    /// Returns:
    ///     The descriptor of its memory, which belongs to this process, its position there, and its length.
    ///
    /// Raises:
    ///     RuntimeError: Somebody has closed the descriptor.
    fn _place(&self) -> PyResult<Place> {
        place(self.inner()?.cell())
    }

    /// Acquire it.
    ///
    /// Args:
    ///     block: False to return at once.
    ///     timeout: Seconds to wait; None and inf wait for ever, negative is 0.
    ///
    /// Returns:
    ///     Whether it was acquired.
    #[pyo3(signature = (block = None, timeout = None), text_signature = "($self, /, block=True, timeout=None)")]
    fn acquire(
        slf: &Bound<'_, Self>,
        block: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<bool> {
        Self::acquire_for(slf, block, timeout)
    }

    /// Release it.
    ///
    /// Raises:
    ///     AssertionError: It is a recursive lock that the calling thread does not have.
    ///     ValueError: It is at its maximum.
    fn release(&self) -> PyResult<()> {
        self.give()
    }

    fn __enter__(slf: &Bound<'_, Self>) -> PyResult<bool> {
        Self::enter(slf)
    }

    #[pyo3(signature = (kind = None, value = None, traceback = None))]
    fn __exit__(
        &self,
        kind: Option<&Bound<'_, PyAny>>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        // Named, since a tuple of them would have to be made.
        let _ = (kind, value, traceback);
        self.give()
    }

    /// A number that tells it apart from others of the same segment of memory.
    #[getter]
    fn handle(&self) -> PyResult<usize> {
        Ok(self.inner()?.cell().position())
    }

    /// 0 for a recursive lock, 1 for everything else.
    #[getter]
    fn kind(&self) -> PyResult<i32> {
        Ok(if matches!(self.inner()?, Inner::RLock(_)) { RECURSIVE_MUTEX } else { SEMAPHORE })
    }

    /// The value when nobody has acquired it.
    #[getter]
    fn maxvalue(&self) -> PyResult<u32> {
        Ok(match self.inner()? {
            Inner::Semaphore(semaphore) => semaphore.maximum(),
            _ => 1,
        })
    }

    /// None: it has no name that could be left behind.
    #[getter]
    #[expect(clippy::unused_self, reason = "an attribute of the original's")]
    const fn name(&self) -> Option<String> {
        None
    }

    /// Whether its holder has died: true for a lock from then on, and until it is set to False.
    ///
    /// For a semaphore, how many the dead have taken that nobody has given back.
    #[getter]
    fn abandoned<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self.inner()? {
            Inner::Semaphore(semaphore) => semaphore.abandoned().into_pyobject(py)?.into_any(),
            other => {
                let abandoned = other.lock().is_some_and(|lock| lock.abandoned_by().is_some());
                abandoned.into_pyobject(py)?.to_owned().into_any()
            }
        })
    }

    #[setter]
    fn set_abandoned(&self, value: bool) -> PyResult<()> {
        match self.inner()?.lock() {
            Some(lock) if !value => lock.forget_abandoned(),
            _ => {
                return Err(PyValueError::new_err(
                    "of a lock, it can be set to False; give back what a semaphore lacks",
                ));
            }
        }
        Ok(())
    }

    /// How often this process has it.
    fn _count(&self) -> PyResult<i64> {
        Ok(match self.inner()? {
            Inner::Lock(lock) => i64::from(lock.is_held_here()),
            Inner::RLock(lock) if lock.lock().is_held_here() => i64::from(lock.depth()),
            Inner::RLock(_) => 0,
            Inner::Semaphore(_) => self.account.count(),
        })
    }

    /// Whether the calling thread has acquired it last, and still has it.
    #[pyo3(name = "_is_mine")]
    fn py_is_mine(&self) -> PyResult<bool> {
        self.is_mine()
    }

    /// How often it could be acquired now.
    pub(crate) fn _get_value(&self) -> PyResult<u32> {
        Ok(match self.inner()? {
            Inner::Semaphore(semaphore) => semaphore.value(),
            other => u32::from(other.lock().is_some_and(|lock| lock.holder().is_none())),
        })
    }

    /// Whether it could not be acquired now.
    fn _is_zero(&self) -> PyResult<bool> {
        Ok(self._get_value()? == 0)
    }

    /// Forget how often this process has it. A lock knows that by itself.
    fn _after_fork(&self) {
        self.account.forget();
    }
}
