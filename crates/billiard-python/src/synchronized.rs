//! Shared objects that are used under a lock. They are here since each use is a handful of calls.

use std::sync::OnceLock;

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::semlock::{SemLock, not_initialized};

#[derive(Debug)]
struct Inner {
    obj: Py<PyAny>,
    lock: Py<PyAny>,
    /// The lock, if it is one of ours, whose methods nobody has replaced.
    native: Option<Py<SemLock>>,
}

/// An object and its lock: what `billiard.sharedctypes` makes its classes of.
#[pyclass(frozen, subclass, dict, weakref, module = "billiard._billiard")]
#[derive(Debug, Default)]
pub(crate) struct Guarded {
    inner: OnceLock<Inner>,
}

impl Guarded {
    fn inner(&self) -> PyResult<&Inner> {
        self.inner.get().ok_or_else(|| not_initialized("the wrapper"))
    }
}

impl Inner {
    fn enter<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match &self.native {
            Some(lock) => Ok(SemLock::enter(lock.bind(py))?.into_pyobject(py)?.to_owned().into_any()),
            None => self.lock.bind(py).call_method0(pyo3::intern!(py, "__enter__")),
        }
    }

    /// Does something with the object, under the lock.
    fn within<'py, T>(
        &self,
        py: Python<'py>,
        what: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<T>,
    ) -> PyResult<T> {
        let obj = self.obj.bind(py);
        if let Some(lock) = &self.native {
            SemLock::enter(lock.bind(py))?;
            let done = what(obj);
            lock.get().give()?;
            return done;
        }
        let lock = self.lock.bind(py);
        lock.call_method0(pyo3::intern!(py, "acquire"))?;
        let done = what(obj);
        lock.call_method0(pyo3::intern!(py, "release"))?;
        done
    }
}

#[pymethods]
impl Guarded {
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
    ///     obj: What is guarded.
    ///     lock: Whatever has `acquire` and `release`.
    ///     native: Whether it is a lock of this package and of no subclass.
    fn _make(&self, obj: Py<PyAny>, lock: Bound<'_, PyAny>, native: bool) {
        let native =
            if native { lock.cast::<SemLock>().ok().map(|lock| lock.clone().unbind()) } else { None };
        // Whoever makes it a second time keeps the first.
        let _ = self.inner.set(Inner { obj, lock: lock.unbind(), native });
    }

    #[getter]
    fn _obj(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.inner()?.obj.clone_ref(py))
    }

    #[getter]
    fn _lock(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.inner()?.lock.clone_ref(py))
    }

    /// Return the object itself, without the lock.
    fn get_obj(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self._obj(py)
    }

    /// Return the lock.
    fn get_lock(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self._lock(py)
    }

    /// Acquire the lock, as it is acquired.
    #[getter]
    fn acquire<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.inner()?.lock.bind(py).getattr(pyo3::intern!(py, "acquire"))
    }

    /// Release the lock, as it is released.
    #[getter]
    fn release<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.inner()?.lock.bind(py).getattr(pyo3::intern!(py, "release"))
    }

    fn __enter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.inner()?.enter(py)
    }

    #[pyo3(signature = (*args: "object"))]
    fn __exit__<'py>(&self, args: &Bound<'py, PyTuple>) -> PyResult<Bound<'py, PyAny>> {
        let (inner, py) = (self.inner()?, args.py());
        match &inner.native {
            Some(lock) => {
                lock.get().give()?;
                Ok(py.None().into_bound(py))
            }
            None => inner.lock.bind(py).call_method1(pyo3::intern!(py, "__exit__"), args.clone()),
        }
    }

    /// How many items the object has. Their number never changes, so the lock is not needed.
    fn _count_items(&self, py: Python<'_>) -> PyResult<usize> {
        self.inner()?.obj.bind(py).len()
    }

    /// Return an item, or a list of some, under the lock.
    fn _get_item<'py>(&self, py: Python<'py>, i: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.inner()?.within(py, |obj| obj.get_item(i))
    }

    /// Set an item, or some, under the lock.
    fn _set_item<'py>(
        &self,
        py: Python<'py>,
        i: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        self.inner()?.within(py, |obj| obj.set_item(i, value))
    }
}

/// An attribute of a guarded object that is read and set under its lock.
///
/// Args:
///     name: Which attribute.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct GuardedAttribute {
    name: Py<PyString>,
}

#[pymethods]
impl GuardedAttribute {
    #[new]
    fn new(name: &Bound<'_, PyString>) -> Self {
        let py = name.py();
        Self { name: PyString::intern(py, &name.to_string_lossy()).unbind() }
    }

    fn __get__<'py>(
        slf: &Bound<'py, Self>,
        instance: Option<&Bound<'py, PyAny>>,
        owner: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let _ = owner;
        let Some(instance) = instance else { return Ok(slf.clone().into_any()) };
        let py = slf.py();
        let guarded = instance.cast::<Guarded>()?.get();
        guarded.inner()?.within(py, |obj| obj.getattr(slf.get().name.bind(py)))
    }

    fn __set__(&self, instance: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = instance.py();
        instance.cast::<Guarded>()?.get().inner()?.within(py, |obj| obj.setattr(self.name.bind(py), value))
    }

    fn __delete__(&self, instance: &Bound<'_, PyAny>) -> PyResult<()> {
        let _ = instance;
        Err(PyAttributeError::new_err("it is part of the object and cannot be deleted"))
    }
}
