//! The worker's loop: takes calls from the ring, makes them, hands in what they return.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use billiard::pool::scheduler::{TaskKey, WorkerId};
use billiard::pool::{self, Hub, INLINE_MOST, Message, Order, WorkerError};
use billiard::sys::descriptor::claim;
use billiard::sys::memory;
use billiard::sys::poll::Woken;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use crate::calls::{CALL, EACH, EACH_LISTED, EACH_WHOLE, SHORT, STAR, WHOLE};
use crate::codec::{self, Encoder, Reader, broken, put_short};
use crate::errors::IntoPyErr;
use crate::python;
use crate::shared::encode_error;
use crate::wait::{Blocking, Wait};

/// No task has this key.
const BETWEEN_TASKS: u64 = u64::MAX;

/// A chunk's values in short form.
pub(crate) const SHORT_LIST: u8 = b'L';

impl IntoPyErr for WorkerError {
    fn into_py_err(self) -> PyErr {
        match self {
            Self::Os { source, .. } => source.into_py_err(),
            other => PyRuntimeError::new_err(other.to_string()),
        }
    }
}

/// A worker's place in the pool: made by the parent, taken by the worker.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Seat {
    seat: Arc<pool::Seat>,
    hub: Arc<Hub>,
    spin: bool,
}

impl Seat {
    pub(crate) const fn new(seat: Arc<pool::Seat>, hub: Arc<Hub>, spin: bool) -> Self {
        Self { seat, hub, spin }
    }

    pub(crate) const fn inner(&self) -> &Arc<pool::Seat> {
        &self.seat
    }
}

#[pymethods]
impl Seat {
    /// The seat that another process has made, in the worker that is to take it.
    ///
    /// Args:
    ///     seat, generation, spin: As `described` tells them.
    ///     descriptors: Those of `shared`, in the same order; they belong to this object from now on.
    ///
    /// Raises:
    ///     OSError: There is no such descriptor, or it is not of a seat.
    #[staticmethod]
    fn received(seat: u32, generation: u32, spin: bool, descriptors: [RawFd; 6]) -> PyResult<Self> {
        let claimed = descriptors.map(claim).into_iter().collect::<Result<Vec<_>, _>>();
        let claimed = claimed.map_err(IntoPyErr::into_py_err)?;
        let [a, b, c, d, e, f]: [OwnedFd; 6] = claimed.try_into().map_err(|_| broken("six were claimed"))?;
        let seat = pool::Seat::received(WorkerId { seat, generation }, [a, b, c]);
        let seat = Arc::new(seat.map_err(IntoPyErr::into_py_err)?);
        let hub = Arc::new(Hub::received([d, e, f]).map_err(IntoPyErr::into_py_err)?);
        Ok(Self { seat, hub, spin })
    }

    /// Which seat this is, and whether its worker may spin.
    fn described(&self) -> (u32, u32, bool) {
        let WorkerId { seat, generation } = self.seat.id();
        (seat, generation, self.spin)
    }

    /// The descriptors that a worker needs which is no copy of this process. They belong to this object.
    fn shared(&self) -> Vec<RawFd> {
        self.seat.shared().into_iter().chain(self.hub.shared()).map(|fd| fd.as_raw_fd()).collect()
    }

    /// Take the seat, in the worker's process.
    ///
    /// Args:
    ///     pickler: The class of picklers for what tasks return.
    fn take(&self, pickler: Bound<'_, PyAny>) -> PyResult<Runtime> {
        pool::engine::close_inherited(&self.seat, &self.hub);
        let runtime = pool::Runtime::new(Arc::clone(&self.seat), Arc::clone(&self.hub), self.spin);
        Ok(Runtime {
            seat: Arc::clone(&self.seat),
            inner: Mutex::new(Some(runtime.map_err(IntoPyErr::into_py_err)?)),
            current: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            aim_seen: AtomicU64::new(0),
            told_to_end: AtomicU64::new(0),
            functions: Mutex::default(),
            encoder: Encoder::new(pickler)?,
        })
    }

    /// Tell the parent, in words, why this worker ends.
    fn note(&self, text: &str) {
        self.seat.notebook().write(text);
    }

    /// A descriptor for crash handlers: what is written to it is told to the parent.
    #[getter]
    fn notebook(&self) -> i32 {
        self.seat.notebook().descriptor()
    }
}

/// A worker at work.
#[pyclass(frozen, module = "billiard._billiard")]
#[derive(Debug)]
pub(crate) struct Runtime {
    seat: Arc<pool::Seat>,
    inner: Mutex<Option<pool::Runtime>>,
    /// The task whose function is being called, or zero: only then may a soft limit strike.
    current: AtomicU64,
    completed: AtomicU64,
    /// The last task that a soft limit was meant for.
    aim_seen: AtomicU64,
    /// The task during which the worker was told to end, or [`BETWEEN_TASKS`].
    told_to_end: AtomicU64,
    functions: Mutex<Vec<Option<Definition>>>,
    encoder: Encoder,
}

/// A function that the parent has described, or why it cannot be had.
#[derive(Debug)]
enum Definition {
    Function(Py<PyAny>),
    Unreadable(PyErr),
}

/// What a task has come to.
enum Done {
    Value(Py<PyAny>),
    Chunk(Py<PyList>),
}

/// How the loop goes.
struct Terms {
    left: Option<u64>,
    memory_limit: Option<u64>,
    prepare: Option<Py<PyAny>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[pymethods]
impl Runtime {
    /// Tell the parent that tasks may come.
    fn up(&self) {
        if let Some(runtime) = lock(&self.inner).as_mut() {
            runtime.up();
        }
    }

    /// Tasks that were finished.
    #[getter]
    fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// Whether the soft-limit signal that has just arrived is meant for the call that is being made: the pool names the task
    /// it is for; one that names nobody was sent by hand, and is for whatever runs.
    fn soft_limit_is_due(&self) -> bool {
        let (current, aimed) = (self.current.load(Ordering::SeqCst), self.seat.aimed());
        let by_hand = self.aim_seen.swap(aimed, Ordering::SeqCst) == aimed;
        current != 0 && (by_hand || aimed == current)
    }

    /// Note that a signal has just told the worker to end.
    fn note_end(&self) {
        let current = self.current.load(Ordering::SeqCst);
        let when = if current == 0 { BETWEEN_TASKS } else { current };
        // The first one counts: a second signal finds the first one's cleanup at work.
        let _ = self.told_to_end.compare_exchange(0, when, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// Make calls until there is a reason to leave.
    ///
    /// Args:
    ///     max_tasks: Leave after so many tasks.
    ///     memory_limit: Leave when the resident memory is above so many KiB after a task.
    ///     prepare: Called with each result before it is sent; returns what is sent.
    ///
    /// Returns:
    ///     True if the worker has done its share, false if it was told to leave.
    #[pyo3(signature = (max_tasks = None, memory_limit = None, prepare = None))]
    fn serve(
        &self,
        py: Python<'_>,
        max_tasks: Option<u64>,
        memory_limit: Option<u64>,
        prepare: Option<Py<PyAny>>,
    ) -> PyResult<bool> {
        let runtime = lock(&self.inner).take();
        let mut runtime = runtime.ok_or_else(|| PyRuntimeError::new_err("the worker is already at work"))?;
        let mut terms = Terms { left: max_tasks, memory_limit, prepare };
        let served = self.work(py, &mut runtime, &mut terms);
        *lock(&self.inner) = Some(runtime);
        served
    }
}

impl Runtime {
    fn work(&self, py: Python<'_>, runtime: &mut pool::Runtime, terms: &mut Terms) -> PyResult<bool> {
        let mut bytes = Vec::new();
        let mut out = Vec::new();
        loop {
            match runtime.next(&mut bytes).map_err(IntoPyErr::into_py_err)? {
                Some(Order::Task { key, function, shared }) => {
                    let message = match shared {
                        Some(lease) => Message::Shared(lease),
                        None => Message::Heap(std::mem::take(&mut bytes).into_boxed_slice()),
                    };
                    let last = self.run(py, runtime, terms, key, function, message, &mut out)?;
                    if last {
                        return Ok(true);
                    }
                    py.check_signals()?;
                }
                Some(Order::Define(number)) => self.define(py, number, &bytes),
                Some(Order::Leave) => return Ok(false),
                None => {
                    if !runtime.spin() {
                        py.wait_for(|interrupts| {
                            runtime.sleep(interrupts).map(|woken| match woken {
                                Woken::Interrupted => Wait::Interrupted,
                                Woken::Ready | Woken::TimedOut => Wait::Ready(()),
                            })
                        })?;
                    }
                }
            }
        }
    }

    fn define(&self, py: Python<'_>, number: u32, bytes: &[u8]) {
        let definition = match codec::read_private(py, bytes) {
            Ok(function) => Definition::Function(function.unbind()),
            Err(error) => Definition::Unreadable(error),
        };
        let mut functions = lock(&self.functions);
        let index = number as usize;
        if functions.len() <= index {
            functions.resize_with(index + 1, || None);
        }
        functions[index] = Some(definition);
    }

    fn function(&self, py: Python<'_>, number: u32) -> PyResult<Py<PyAny>> {
        match lock(&self.functions).get(number as usize) {
            Some(Some(Definition::Function(function))) => Ok(function.clone_ref(py)),
            Some(Some(Definition::Unreadable(error))) => Err(error.clone_ref(py)),
            _ => Err(broken("the pool has sent a task before its function")),
        }
    }

    /// Makes one call and hands in what came of it. Whether it was the last one.
    #[expect(
        clippy::too_many_arguments,
        reason = "the loop's state, taken apart so that nothing is borrowed twice"
    )]
    fn run(
        &self,
        py: Python<'_>,
        runtime: &mut pool::Runtime,
        terms: &mut Terms,
        key: TaskKey,
        function: u32,
        message: Message,
        out: &mut Vec<u8>,
    ) -> PyResult<bool> {
        let called = self.call(py, key, function, message);
        self.current.store(0, Ordering::SeqCst);
        let called = called.and_then(|done| prepared(py, terms, done));
        let last = self.is_last(py, terms)?;
        out.clear();
        let sent = called.and_then(|done| self.send(py, runtime, key, last, done, out));
        if let Err(error) = sent {
            let told = self.told_to_end.load(Ordering::SeqCst);
            if told == key.to_bits() || told == BETWEEN_TASKS {
                return Err(error);
            }
            let bytes = encode_error(py, &error, true)?;
            publish(py, runtime, key, true, last, &bytes)?;
        }
        if self.told_to_end.load(Ordering::SeqCst) == key.to_bits() {
            // The task has caught it, and lives with that; the next one is not to blame.
            self.told_to_end.store(0, Ordering::SeqCst);
            python::tasks(py, "forget_the_end")?.call0()?;
        }
        self.completed.fetch_add(1, Ordering::Relaxed);
        Ok(last)
    }

    fn is_last(&self, py: Python<'_>, terms: &mut Terms) -> PyResult<bool> {
        if let Some(left) = &mut terms.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return Ok(true);
            }
        }
        if let Some(limit) = terms.memory_limit
            && let Ok(used) = memory::rss_kib()
            && used > limit
        {
            python::tasks(py, "memory_limit_passed")?.call1((used, limit))?;
            return Ok(true);
        }
        Ok(false)
    }

    fn call(&self, py: Python<'_>, key: TaskKey, number: u32, message: Message) -> PyResult<Done> {
        let kind = match &message {
            Message::Shared(lease) => {
                let mut first = Vec::new();
                lease.read_to(0, 1.min(lease.len()), &mut first);
                first.first().copied()
            }
            private => private.private().and_then(|bytes| bytes.first().copied()),
        };
        let kind = kind.ok_or_else(|| broken("the pool has sent an empty task"))?;
        match kind {
            SHORT => {
                let bytes = message.to_vec();
                let args = Reader::new(&bytes[1..]).value(py)?.cast_into::<PyTuple>()?;
                drop(message);
                let function = self.function(py, number)?;
                self.begin(py, key)?;
                function.bind(py).call1(args).map(|value| Done::Value(value.unbind()))
            }
            CALL => {
                let (args, kwargs): (Bound<'_, PyAny>, Bound<'_, PyAny>) =
                    codec::read(py, &message, 1)?.extract()?;
                drop(message);
                let function = self.function(py, number)?;
                self.spread(key, function.bind(py), args, kwargs)
            }
            WHOLE => {
                let (function, args, kwargs): (Bound<'_, PyAny>, Bound<'_, PyAny>, Bound<'_, PyAny>) =
                    codec::read(py, &message, 1)?.extract()?;
                drop(message);
                self.spread(key, &function, args, kwargs)
            }
            _ => self.call_each(py, key, number, kind, message),
        }
    }

    /// From here on a soft limit may strike: the next thing that runs is the program's function. A signal that came before
    /// was for no task, unless the pool has named this one: reading the arguments has taken longer than the limit.
    fn begin(&self, py: Python<'_>, key: TaskKey) -> PyResult<()> {
        py.check_signals()?;
        self.current.store(key.to_bits(), Ordering::SeqCst);
        if self.seat.aimed() == key.to_bits() {
            let passed = py.import("billiard.exceptions")?.getattr("SoftTimeLimitExceeded")?;
            return Err(PyErr::from_value(passed.call0()?));
        }
        Ok(())
    }

    fn spread(
        &self,
        key: TaskKey,
        function: &Bound<'_, PyAny>,
        args: Bound<'_, PyAny>,
        kwargs: Bound<'_, PyAny>,
    ) -> PyResult<Done> {
        let (py, args) = (function.py(), as_tuple(args)?);
        let kwargs = match kwargs.cast_into::<PyDict>() {
            Ok(kwargs) => kwargs,
            Err(other) => function.py().get_type::<PyDict>().call1((other.into_inner(),))?.cast_into()?,
        };
        self.begin(py, key)?;
        function.call(args, Some(&kwargs)).map(|value| Done::Value(value.unbind()))
    }

    fn call_each(
        &self,
        py: Python<'_>,
        key: TaskKey,
        number: u32,
        kind: u8,
        message: Message,
    ) -> PyResult<Done> {
        let star = kind & STAR != 0;
        let (function, items) = match kind & !STAR {
            EACH => {
                let bytes = message.to_vec();
                let mut reader = Reader::new(&bytes[1..]);
                let count = reader.u32()?;
                let items = (0..count).map(|_| reader.value(py)).collect::<PyResult<Vec<_>>>()?;
                (self.function(py, number)?.into_bound(py), items)
            }
            EACH_LISTED => {
                let items: Vec<_> = codec::read(py, &message, 1)?.extract()?;
                (self.function(py, number)?.into_bound(py), items)
            }
            EACH_WHOLE => {
                let (function, items): (Bound<'_, PyAny>, Vec<Bound<'_, PyAny>>) =
                    codec::read(py, &message, 1)?.extract()?;
                (function, items)
            }
            _ => return Err(broken("the pool has sent a task of an unknown kind")),
        };
        drop(message);
        let values = PyList::empty(py);
        self.begin(py, key)?;
        for item in items {
            values.append(if star {
                function.call1(as_tuple(item)?)?
            } else {
                function.call1((item,))?
            })?;
        }
        Ok(Done::Chunk(values.unbind()))
    }

    /// Hands in a result. An error says why it cannot be sent; then nothing was.
    fn send(
        &self,
        py: Python<'_>,
        runtime: &mut pool::Runtime,
        key: TaskKey,
        last: bool,
        done: Done,
        out: &mut Vec<u8>,
    ) -> PyResult<()> {
        let value = match done {
            Done::Value(value) => {
                let value = value.into_bound(py);
                if put_short(&value, out) {
                    return publish(py, runtime, key, false, last, out);
                }
                value
            }
            Done::Chunk(values) => {
                let values = values.into_bound(py);
                out.push(SHORT_LIST);
                out.extend((values.len() as u32).to_le_bytes());
                if values.iter().all(|value| put_short(&value, out)) {
                    return publish(py, runtime, key, false, last, out);
                }
                values.into_any()
            }
        };
        let pickled = match self.encoder.pickle(&value, &[]) {
            Ok(pickled) => pickled,
            Err(error) => {
                let told = python::tasks(py, "unsendable_result")?.call1((error.value(py), value))?;
                return Err(PyErr::from_value(told));
            }
        };
        if !pickled.has_buffers() {
            return publish(py, runtime, key, false, last, &pickled.bytes);
        }
        let runtime = Mutex::new(runtime);
        let placed = pickled.write(
            py,
            |len| lock(&runtime).place(len).map_err(IntoPyErr::into_py_err)?.ok_or_else(no_room),
            |placed, at, len| lock(&runtime).pointer(placed, at, len),
        )?;
        let mut runtime = lock(&runtime);
        runtime.publish_placed(key, false, last, placed).map_err(IntoPyErr::into_py_err)
    }
}

fn no_room() -> PyErr {
    pyo3::exceptions::PyMemoryError::new_err("no shared memory is left for the result of a task")
}

fn as_tuple(args: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyTuple>> {
    let py = args.py();
    match args.cast_into::<PyTuple>() {
        Ok(args) => Ok(args),
        Err(other) => Ok(py.get_type::<PyTuple>().call1((other.into_inner(),))?.cast_into()?),
    }
}

fn prepared(py: Python<'_>, terms: &Terms, done: Done) -> PyResult<Done> {
    match (&terms.prepare, done) {
        (Some(prepare), Done::Value(value)) => prepare.call1(py, (value,)).map(Done::Value),
        (Some(prepare), Done::Chunk(values)) => prepare.call1(py, (values,)).map(Done::Value),
        (None, done) => Ok(done),
    }
}

/// Hands in bytes, through the ring or, if there are many, beside it.
fn publish(
    py: Python<'_>,
    runtime: &mut pool::Runtime,
    key: TaskKey,
    error: bool,
    last: bool,
    bytes: &[u8],
) -> PyResult<()> {
    if bytes.len() <= INLINE_MOST {
        return runtime.publish(key, error, last, bytes).map_err(IntoPyErr::into_py_err);
    }
    let placed = runtime.place(bytes.len()).map_err(IntoPyErr::into_py_err)?.ok_or_else(no_room)?;
    runtime.fill(&placed, 0, bytes);
    py.detach(|| runtime.publish_placed(key, error, last, placed)).map_err(IntoPyErr::into_py_err)
}
