//! Queues of Python objects. A put and a get are one call from Python each; nothing of ours that is written in Python runs
//! in between.

use std::cell::Cell;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::OnceLock;

use billiard::queue::{AsLetter, Got, Message as Received, Messages, Put, Queue, Writers};
use billiard::sys::Deadline;
use billiard::sys::descriptor::claim;
use pyo3::exceptions::{PyEOFError, PyException, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyList;

use crate::errors::IntoPyErr;
use crate::letters::{self, Encoded, LARGE, Message, Pickling};
use crate::python;
use crate::wait::{self, Blocking, Wait};

/// How often somebody who wants to know it looks whether anybody is left who puts, in seconds.
const LOOK: f64 = 0.1;

thread_local! {
    // Whoever finds it gone, because unpickling has led to another get, makes its own.
    static MESSAGES: Cell<Option<Messages>> = const { Cell::new(None) };
    static BYTES: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The truth of any object, as `if` finds it.
#[derive(Clone, Copy)]
pub(crate) struct Truth(bool);

impl<'py> FromPyObject<'_, 'py> for Truth {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        object.is_truthy().map(Self)
    }
}

fn deadline(block: Truth, timeout: Option<f64>) -> PyResult<Deadline> {
    let deadline = wait::deadline(timeout)?;
    Ok(if block.0 { deadline } else { Deadline::AT_ONCE })
}

fn usual_pickling(py: Python<'_>) -> PyResult<&'static Pickling> {
    static PICKLING: PyOnceLock<Pickling> = PyOnceLock::new();
    PICKLING.get_or_try_init(py, || Pickling::new(python::forking_pickler(py)?.clone(), true))
}

/// What the queues of the package are: put, get and what goes with them.
#[pyclass(frozen, subclass, weakref, module = "billiard._billiard")]
#[derive(Debug, Default)]
pub(crate) struct MessageQueue {
    // Filled once, by whoever makes the object, before anybody else has it.
    queue: OnceLock<Queue>,
    /// Of a context that has its own.
    pickling: OnceLock<Pickling>,
}

impl MessageQueue {
    fn pickling(&self, py: Python<'_>) -> PyResult<&Pickling> {
        self.pickling.get().map_or_else(|| usual_pickling(py), Ok)
    }

    fn queue(&self) -> PyResult<&Queue> {
        self.queue.get().ok_or_else(|| PyRuntimeError::new_err("the queue's __init__() was not called"))
    }

    fn fill(&self, queue: Queue) -> PyResult<()> {
        self.queue.set(queue).map_err(|_| PyRuntimeError::new_err("the queue is made already"))
    }
}

fn open_queue<'a>(slf: &'a Bound<'_, MessageQueue>) -> PyResult<&'a Queue> {
    let queue = slf.get().queue()?;
    if queue.is_closed() {
        return Err(PyValueError::new_err(format!("Queue {} is closed", slf.repr()?)));
    }
    Ok(queue)
}

fn queue_error(py: Python<'_>, full: bool) -> PyErr {
    match python::queue_error(py, full).and_then(|class| class.call0()) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// An object as it is sent. `None`: it cannot be pickled, and the queue's own method has seen to it.
fn encode<'py>(slf: &Bound<'_, MessageQueue>, object: &Bound<'py, PyAny>) -> PyResult<Option<Encoded<'py>>> {
    let py = object.py();
    let pickling = slf.get().pickling(py)?;
    let mut bytes = BYTES.take();
    bytes.clear();
    if pickling.put_short(object, &mut bytes) {
        return Ok(Some(Encoded::Bytes(bytes)));
    }
    BYTES.set(bytes);
    match pickling.encode(object) {
        Ok(encoded) => Ok(Some(encoded)),
        Err(error) if error.is_instance_of::<PyException>(py) => {
            let hook = pyo3::intern!(py, "_on_queue_feeder_error");
            slf.call_method1(hook, (error.into_value(py), object))?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Puts all messages, and waits for room as long as it takes until the deadline. How many were put.
fn put_all(
    py: Python<'_>,
    queue: &Queue,
    messages: &[impl AsLetter + Sync],
    deadline: Deadline,
) -> PyResult<usize> {
    let large = messages.iter().map(|message| message.as_letter().len()).sum::<usize>() >= LARGE;
    let mut done = 0;
    if !large {
        done = queue.try_put(messages).map_err(IntoPyErr::into_py_err)?.unwrap_or(0);
    }
    while done < messages.len() {
        let put = py.wait_on_word(|| {
            queue.put(&messages[done..], deadline).map(|put| match put {
                Put::Done(count) => Wait::Ready(count),
                Put::Full => Wait::TimedOut,
                Put::Interrupted => Wait::Interrupted,
            })
        })?;
        match put {
            Some(count) => done += count,
            None => break,
        }
    }
    Ok(done)
}

fn read<'py>(py: Python<'py>, received: Received<'_>) -> PyResult<Bound<'py, PyAny>> {
    match received {
        Received::Bytes(bytes) => letters::read_bytes(py, bytes),
        Received::Parcel(parcel) => letters::read_parcel(py, parcel),
    }
}

/// Gets up to `most` messages into `into`. Whether there were any.
fn get_some(
    py: Python<'_>,
    queue: &Queue,
    most: usize,
    into: &mut Messages,
    deadline: Deadline,
    eof: bool,
) -> PyResult<bool> {
    if queue.try_get(most, into).map_err(IntoPyErr::into_py_err)?.is_some_and(|got| got > 0) {
        return Ok(true);
    }
    loop {
        let look = if eof { Deadline::from_seconds(Some(LOOK)) } else { Deadline::Never };
        let until = match (deadline, look) {
            (Deadline::At(a), Deadline::At(b)) => Deadline::At(a.min(b)),
            (Deadline::Never, other) | (other, Deadline::Never) => other,
        };
        // Asked before the queue is: whoever is gone has put before.
        let nobody = eof && queue.writers() == Writers::Gone;
        let until = if nobody { Deadline::AT_ONCE } else { until };
        let got = py.wait_on_word(|| {
            queue.take(most, into, until).map(|got| match got {
                Got::Some(_) => Wait::Ready(()),
                Got::Empty => Wait::TimedOut,
                Got::Interrupted => Wait::Interrupted,
            })
        })?;
        if got.is_some() {
            return Ok(true);
        }
        if nobody {
            return Err(PyEOFError::new_err(
                "the queue is empty, and every process that has put into it is gone",
            ));
        }
        if deadline.passed() {
            return Ok(false);
        }
    }
}

#[pymethods]
impl MessageQueue {
    #[new]
    #[pyo3(signature = (*_args: "object", **_kwargs: "object"))]
    fn new(_args: &Bound<'_, PyAny>, _kwargs: Option<&Bound<'_, PyAny>>) -> Self {
        Self::default()
    }

    /// Make the queue itself.
    ///
    /// Args:
    ///     most: How many messages it holds.
    ///     most_bytes: How many bytes they may take for another one to be put; None for any number.
    ///
    /// Raises:
    ///     OSError: No memory or descriptor is left.
    fn _make(&self, most: u32, most_bytes: Option<u64>) -> PyResult<()> {
        self.fill(Queue::bounded(Some(most), most_bytes).map_err(IntoPyErr::into_py_err)?)
    }

    /// Have objects pickled in another way than is usual, from the start.
    ///
    /// Args:
    ///     pickler: A class of picklers.
    ///     short: Whether what is simple may be sent without them.
    fn _pickle_by(&self, pickler: Bound<'_, PyAny>, short: bool) -> PyResult<()> {
        let pickling = Pickling::new(pickler, short)?;
        self.pickling.set(pickling).map_err(|_| PyRuntimeError::new_err("the queue has its pickler already"))
    }

    /// Take over the queue that another process has made.
    ///
    /// Args:
    ///     memory: Its first descriptor, which belongs to this object from now on.
    ///     bell: The second one.
    ///
    /// Raises:
    ///     OSError: The descriptors are not open.
    ///     ValueError: They are not those of a queue.
    fn _take(&self, memory: RawFd, bell: RawFd) -> PyResult<()> {
        let memory = claim(memory).map_err(IntoPyErr::into_py_err)?;
        let bell = claim(bell).map_err(IntoPyErr::into_py_err)?;
        self.fill(Queue::received([memory, bell]).map_err(IntoPyErr::into_py_err)?)
    }

    /// The descriptors for `_take`; they stay this object's.
    fn _descriptors(&self) -> PyResult<(RawFd, RawFd)> {
        let [memory, bell] = self.queue()?.shared();
        Ok((memory.as_raw_fd(), bell.as_raw_fd()))
    }

    /// Put an object into the queue.
    ///
    /// It is pickled at once, and when the call returns it is in the queue, whatever becomes of this process.
    ///
    /// Args:
    ///     obj: Anything that can be pickled.
    ///     block: False not to wait for room in a full queue.
    ///     timeout: Seconds to wait for it; None for as long as it takes, 0 and less not at all.
    ///
    /// Raises:
    ///     queue.Full: There was no room.
    ///     ValueError: The queue is closed, or the timeout is nan.
    ///     OSError: There is no memory left.
    ///     Exception: What pickling raises, unless `_on_queue_feeder_error` does something else with it.
    #[pyo3(
        signature = (obj, block: "bool" = Truth(true), timeout = None),
        text_signature = "($self, obj, block=True, timeout=None)"
    )]
    fn put(
        slf: &Bound<'_, Self>,
        obj: &Bound<'_, PyAny>,
        block: Truth,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let (py, queue) = (slf.py(), open_queue(slf)?);
        let deadline = deadline(block, timeout)?;
        let Some(encoded) = encode(slf, obj)? else { return Ok(()) };
        let Some(message) = encoded.into_message(py, queue, deadline)? else {
            return Err(queue_error(py, true));
        };
        let messages = [message];
        let put = put_all(py, queue, &messages, deadline);
        let [message] = messages;
        if let Message::Bytes(bytes) = message
            && bytes.capacity() <= LARGE
        {
            BYTES.set(bytes);
        }
        if put? == 1 { Ok(()) } else { Err(queue_error(py, true)) }
    }

    /// Put an object into the queue if there is room for it now.
    ///
    /// Raises:
    ///     queue.Full: There is none.
    fn put_nowait(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        slf.call_method1(pyo3::intern!(slf.py(), "put"), (obj, false)).map(drop)
    }

    /// Put several objects into the queue, one after the other.
    ///
    /// As many as there is room for become visible together, and nobody else's come between them.
    ///
    /// Args:
    ///     objs: Objects that can be pickled. If one cannot, none is put, unless `_on_queue_feeder_error` returns.
    ///     block: False not to wait for room in a full queue.
    ///     timeout: Seconds to wait for it; None for as long as it takes, 0 and less not at all.
    ///
    /// Raises:
    ///     queue.Full: There was no room for all of them. Its only argument is how many were put.
    ///     ValueError: The queue is closed, or the timeout is nan.
    ///     OSError: There is no memory left.
    #[pyo3(
        signature = (objs, block: "bool" = Truth(true), timeout = None),
        text_signature = "($self, objs, block=True, timeout=None)"
    )]
    fn put_many(
        slf: &Bound<'_, Self>,
        objs: &Bound<'_, PyAny>,
        block: Truth,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let (py, queue) = (slf.py(), open_queue(slf)?);
        let deadline = deadline(block, timeout)?;
        let mut encoded = Vec::new();
        for object in objs.try_iter()? {
            encoded.extend(encode(slf, &object?)?);
        }
        let (all, mut done) = (encoded.len(), 0);
        let mut encoded = encoded.into_iter();
        while done < all {
            let (messages, full) = letters::ready(py, &mut encoded, queue, deadline)?;
            let put = put_all(py, queue, &messages, deadline)?;
            done += put;
            if full || put < messages.len() {
                return Err(PyErr::from_value(python::queue_error(py, true)?.call1((done,))?));
            }
        }
        Ok(())
    }

    /// Get an object out of the queue.
    ///
    /// Args:
    ///     block: False not to wait for one.
    ///     timeout: Seconds to wait; None for as long as it takes, 0 and less not at all.
    ///     eof: True to be told when there is nothing to wait for: the queue is empty, and every process that has put into it
    ///         has ended or closed it. The calling process does not count, and as long as nobody has put anything, somebody
    ///         may.
    ///
    /// Raises:
    ///     queue.Empty: There was none.
    ///     EOFError: There will be none, with `eof`.
    ///     ValueError: The queue is closed, or the timeout is nan.
    ///     Exception: What unpickling raises. The object is gone from the queue.
    #[pyo3(
        signature = (block: "bool" = Truth(true), timeout = None, *, eof: "bool" = Truth(false)),
        text_signature = "($self, block=True, timeout=None, *, eof=False)"
    )]
    fn get<'py>(
        slf: &Bound<'py, Self>,
        block: Truth,
        timeout: Option<f64>,
        eof: Truth,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, queue) = (slf.py(), open_queue(slf)?);
        let deadline = deadline(block, timeout)?;
        let mut messages = MESSAGES.take().unwrap_or_default();
        let got = get_some(py, queue, 1, &mut messages, deadline, eof.0)?;
        let object = match messages.each().next().filter(|_| got) {
            Some(received) => read(py, received),
            None => Err(queue_error(py, false)),
        };
        messages.clear();
        MESSAGES.set(Some(messages));
        object
    }

    /// Get an object out of the queue if there is one now.
    ///
    /// Raises:
    ///     queue.Empty: There is none.
    fn get_nowait<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.call_method1(pyo3::intern!(slf.py(), "get"), (false,))
    }

    /// Get several objects out of the queue: as many as there are, at least one.
    ///
    /// Args:
    ///     most: How many at most; None for no limit.
    ///     block: False not to wait for the first one.
    ///     timeout: Seconds to wait for it; None for as long as it takes, 0 and less not at all.
    ///     eof: As for `get`.
    ///
    /// Returns:
    ///     The objects, in the order in which they were put.
    ///
    /// Raises:
    ///     queue.Empty: There was none.
    ///     EOFError: There will be none, with `eof`.
    ///     ValueError: The queue is closed, the timeout is nan, or `most` is less than 1.
    ///     Exception: What unpickling raises. All of them are gone from the queue.
    #[pyo3(
        signature = (most = None, block: "bool" = Truth(true), timeout = None, *, eof: "bool" = Truth(false)) -> "list[object]",
        text_signature = "($self, most=None, block=True, timeout=None, *, eof=False)"
    )]
    fn get_many<'py>(
        slf: &Bound<'py, Self>,
        most: Option<isize>,
        block: Truth,
        timeout: Option<f64>,
        eof: Truth,
    ) -> PyResult<Bound<'py, PyList>> {
        let (py, queue) = (slf.py(), open_queue(slf)?);
        let most = match most {
            None => usize::MAX,
            Some(most) if most > 0 => most.cast_unsigned(),
            Some(most) => return Err(PyValueError::new_err(format!("most must be at least 1, not {most}"))),
        };
        let deadline = deadline(block, timeout)?;
        let mut messages = MESSAGES.take().unwrap_or_default();
        if !get_some(py, queue, most, &mut messages, deadline, eof.0)? {
            MESSAGES.set(Some(messages));
            return Err(queue_error(py, false));
        }
        let objects = messages.each().map(|received| read(py, received)).collect::<PyResult<Vec<_>>>();
        let list = objects.and_then(|objects| PyList::new(py, objects));
        messages.clear();
        MESSAGES.set(Some(messages));
        list
    }

    /// Tell how many objects are in the queue. When the answer is there, it may be different already.
    fn qsize(&self) -> PyResult<usize> {
        Ok(self.queue()?.len())
    }

    /// Tell whether there is no object in the queue.
    fn empty(&self) -> PyResult<bool> {
        Ok(self.queue()?.is_empty())
    }

    /// Tell whether no object can be put until one is got.
    fn full(&self) -> PyResult<bool> {
        Ok(self.queue()?.is_full())
    }

    /// Give a descriptor that is readable while there is an object in the queue, for `select` and its kind.
    ///
    /// Whoever is faster may take the object away: use `get_nowait`. From the first call on, putting into an empty queue and
    /// emptying it cost a system call each.
    fn fileno(&self) -> PyResult<RawFd> {
        Ok(self.queue()?.bell().map_err(IntoPyErr::into_py_err)?.as_raw_fd())
    }

    /// Note that this process will neither put nor get any more.
    fn _close(&self) -> PyResult<()> {
        self.queue()?.close().map_err(IntoPyErr::into_py_err)
    }

    /// Whether this process has closed the queue.
    #[getter]
    fn _closed(&self) -> PyResult<bool> {
        Ok(self.queue()?.is_closed())
    }

    /// Report that the task of one object that was got is done.
    ///
    /// Raises:
    ///     ValueError: As many were reported as were put.
    fn _task_done(&self) -> PyResult<()> {
        self.queue()?.task_done().map_err(IntoPyErr::into_py_err)
    }

    /// Wait until every object that was put was reported as done.
    fn _join(&self, py: Python<'_>) -> PyResult<()> {
        let queue = self.queue()?;
        let since = queue.times_done();
        py.wait_on_word(|| queue.wait_done(since, Deadline::Never).map(Wait::from)).map(drop)
    }

    /// How many objects were put that were not reported as done.
    fn _unfinished(&self) -> PyResult<usize> {
        Ok(self.queue()?.unfinished())
    }
}
