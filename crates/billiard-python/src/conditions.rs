//! Conditions, events and barriers.

use std::sync::OnceLock;

use billiard::sync::{Arrival, Barrier as Gate, BarrierState, Condition as Line, Event as Flag};
use pyo3::exceptions::{PyAssertionError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::errors::IntoPyErr;
use crate::semlock::{Place, SemLock, not_initialized, place, received};
use crate::wait::{self, Blocking};

fn initialized_twice<T>(_: T) -> PyErr {
    PyRuntimeError::new_err("it is initialized already")
}

/// A condition in shared memory, with its lock: what `billiard.synchronize` makes its class of.
#[pyclass(frozen, subclass, module = "billiard._billiard")]
#[derive(Debug, Default)]
pub(crate) struct Condition {
    inner: OnceLock<(Line, Py<SemLock>)>,
}

impl Condition {
    fn inner(&self) -> PyResult<&(Line, Py<SemLock>)> {
        self.inner.get().ok_or_else(|| not_initialized("the condition"))
    }
}

#[pymethods]
impl Condition {
    #[new]
    #[pyo3(signature = (*args: "object", **kwargs: "object"))]
    fn new(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        // They belong to `__init__`.
        let _ = (args, kwargs);
        Self::default()
    }

    /// Make it what it is.
    ///
    /// Args:
    ///     lock: What whoever waits or notifies holds.
    ///     place: Where another process has it; None for a new one.
    ///
    /// Raises:
    ///     OSError: No memory or descriptor is left.
    #[pyo3(signature = (lock, place = None))]
    fn _make(&self, lock: Py<SemLock>, place: Option<Place>) -> PyResult<()> {
        let line = match place {
            Some(place) => Line::from_cell(received(place)?),
            None => Line::new(),
        };
        self.inner.set((line.map_err(IntoPyErr::into_py_err)?, lock)).map_err(initialized_twice)
    }

    /// Where it lives, as for locks.
    fn _place(&self) -> PyResult<Place> {
        place(self.inner()?.0.cell())
    }

    /// Acquire the lock.
    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        SemLock::enter(self.inner()?.1.bind(py))
    }

    /// Release the lock.
    #[pyo3(signature = (*args: "object"))]
    fn __exit__(&self, args: &Bound<'_, PyTuple>) -> PyResult<()> {
        let _ = args;
        self.inner()?.1.get().give()
    }

    /// Release the lock, wait for a notification, and acquire the lock again.
    ///
    /// Args:
    ///     timeout: Seconds to wait; None and inf wait for ever, 0 and less do not wait.
    ///
    /// Returns:
    ///     False if the time was up first.
    ///
    /// Raises:
    ///     AssertionError: The calling thread does not hold the lock.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let (line, lock) = self.inner()?;
        if !lock.get().is_mine()? {
            return Err(PyAssertionError::new_err("must acquire() condition before using wait()"));
        }
        let deadline = wait::deadline(timeout)?;
        let ticket = line.enter();
        let times = match lock.get().release_all() {
            Ok(times) => times,
            Err(error) => {
                line.leave(&ticket, false);
                return Err(error);
            }
        };
        let slept = py.wait_on_word(|| line.sleep(&ticket, deadline, lock.get().lock()));
        let raised = SemLock::acquire_again(lock.bind(py), times)?;
        let served = line.leave(&ticket, matches!(slept, Ok(Some(()))));
        match (slept, raised) {
            (Ok(_), None) => Ok(served),
            (Err(error), _) | (Ok(_), Some(error)) => {
                // Whoever raises does not do what was asked of one of those who wait.
                if served {
                    line.notify(1, lock.get().lock());
                }
                Err(error)
            }
        }
    }

    /// Have some of those who wait go on.
    ///
    /// Args:
    ///     n: How many at most.
    ///
    /// Raises:
    ///     AssertionError: The calling thread does not hold the lock.
    #[pyo3(signature = (n = 1))]
    fn notify(&self, n: i64) -> PyResult<()> {
        let (line, lock) = self.inner()?;
        if !lock.get().is_mine()? {
            return Err(PyAssertionError::new_err("lock is not owned"));
        }
        if let Ok(most) = u32::try_from(n.min(i64::from(u32::MAX))) {
            line.notify(most, lock.get().lock());
        }
        Ok(())
    }

    /// Have all who wait go on.
    ///
    /// Raises:
    ///     AssertionError: The calling thread does not hold the lock.
    fn notify_all(&self) -> PyResult<()> {
        self.notify(i64::MAX)
    }

    /// How many wait, as far as it is known that they live.
    fn _sleepers(&self) -> PyResult<u32> {
        Ok(self.inner()?.0.sleepers())
    }

    /// How many notifications nobody has taken yet.
    fn _grants(&self) -> PyResult<u32> {
        Ok(self.inner()?.0.grants())
    }
}

/// A flag in shared memory that can be waited for: what `billiard.synchronize` makes its class of.
#[pyclass(frozen, subclass, module = "billiard._billiard")]
#[derive(Debug, Default)]
pub(crate) struct Event {
    inner: OnceLock<Flag>,
}

impl Event {
    #[inline]
    fn inner(&self) -> PyResult<&Flag> {
        self.inner.get().ok_or_else(|| not_initialized("the event"))
    }
}

#[pymethods]
impl Event {
    #[new]
    #[pyo3(signature = (*args: "object", **kwargs: "object"))]
    fn new(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        // They belong to `__init__`.
        let _ = (args, kwargs);
        Self::default()
    }

    /// Make it what it is: a new one, or one that another process has.
    #[pyo3(signature = (place = None))]
    fn _make(&self, place: Option<Place>) -> PyResult<()> {
        let flag = match place {
            Some(place) => Flag::from_cell(received(place)?),
            None => Flag::new(),
        };
        self.inner.set(flag.map_err(IntoPyErr::into_py_err)?).map_err(initialized_twice)
    }

    /// Where it lives, as for locks.
    fn _place(&self) -> PyResult<Place> {
        place(self.inner()?.cell())
    }

    /// Tell whether it is set.
    fn is_set(&self) -> PyResult<bool> {
        Ok(self.inner()?.is_set())
    }

    /// Set it, and have all who wait go on.
    fn set(&self) -> PyResult<()> {
        self.inner()?.set();
        Ok(())
    }

    /// Take it back.
    fn clear(&self) -> PyResult<()> {
        self.inner()?.clear();
        Ok(())
    }

    /// Wait until it is set.
    ///
    /// Args:
    ///     timeout: Seconds to wait; None and inf wait for ever, 0 and less only look.
    ///
    /// Returns:
    ///     Whether it is set, or was meanwhile.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let flag = self.inner()?;
        if flag.is_set() {
            return Ok(true);
        }
        let deadline = wait::deadline(timeout)?;
        let since = flag.now();
        Ok(py.wait_on_word(|| flag.wait_since(since, deadline))?.is_some())
    }
}

/// What a barrier has in shared memory.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Barrier {
    gate: Gate,
}

#[pymethods]
impl Barrier {
    /// A new one for so many parties, or one that another process has.
    #[new]
    #[pyo3(signature = (parties, place = None))]
    fn new(parties: u32, place: Option<Place>) -> PyResult<Self> {
        let gate = match place {
            Some(place) => Gate::from_cell(received(place)?),
            None => Gate::new(parties),
        };
        Ok(Self { gate: gate.map_err(IntoPyErr::into_py_err)? })
    }

    /// Where it lives, as for locks.
    fn _place(&self) -> PyResult<Place> {
        place(self.gate.cell())
    }

    /// Wait until all are there.
    ///
    /// Args:
    ///     parties: How many that is.
    ///     action: What the last one calls before all go on.
    ///     timeout: Seconds to wait; None and inf wait for ever.
    ///
    /// Returns:
    ///     How many were there before; None if the barrier is broken.
    #[pyo3(signature = (parties, action = None, timeout = None))]
    fn wait(
        &self,
        py: Python<'_>,
        parties: u32,
        action: Option<&Bound<'_, PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<Option<u32>> {
        let deadline = wait::deadline(timeout)?;
        loop {
            match self.gate.arrive(parties) {
                Arrival::Broken => return Ok(None),
                Arrival::Later(seen) => {
                    if py.wait_on_word(|| self.gate.wait_for_turn(seen, deadline))?.is_none() {
                        self.gate.abort();
                        return Ok(None);
                    }
                }
                Arrival::Last(index) => {
                    if let Some(action) = action {
                        action.call0().inspect_err(|_| self.gate.give_up())?;
                    }
                    return Ok(self.gate.open().then_some(index));
                }
                Arrival::Waits { index, round } => {
                    let waited = py
                        .wait_on_word(|| self.gate.wait(round, deadline))
                        .inspect_err(|_| self.gate.withdraw(round))?;
                    return Ok((waited == Some(true)).then_some(index));
                }
            }
        }
    }

    /// Have all who wait, and will, find it broken, until it is reset.
    fn abort(&self) {
        self.gate.abort();
    }

    /// Begin anew; all who wait find that it was broken.
    fn reset(&self) {
        self.gate.reset();
    }

    /// Whether it is broken.
    #[getter]
    fn broken(&self) -> bool {
        self.gate.state() == BarrierState::Broken
    }

    /// Whether all are there and the last one is about to let them go on.
    #[getter]
    fn opening(&self) -> bool {
        self.gate.state() == BarrierState::Opening
    }

    /// How many wait.
    #[getter]
    fn waiting(&self) -> u32 {
        self.gate.waiting()
    }
}
