from _typeshed import SupportsGetItem, SupportsLenAndGetItem
from typing import Any, Final, SupportsFloat, SupportsIndex, final
from typing_extensions import disjoint_base

__all__ = ["ApplyResult", "Barrier", "Block", "BoundedSemaphore", "Bundle", "Child", "Condition", "Connection", "Doorman", "Engine", "Event", "Feeder", "Guarded", "GuardedAttribute", "Hall", "IMapIterator", "IMapUnorderedIterator", "Inlet", "Line", "Lock", "MapResult", "MessageQueue", "Mouth", "Outlet", "Parent", "Pump", "RLock", "Runtime", "Seat", "SemLock", "Semaphore", "SharedView", "Zygote", "ZygoteServer", "answer_challenge", "build_info", "fork", "get_pdeathsig", "has_pidfd", "introduce", "judge_answer", "mem_available", "mem_limit", "mem_rss", "mem_rss_peak", "memory_file", "named_create", "named_let_go", "named_open", "named_remove", "named_remove_all", "named_sweep", "new_challenge", "oom_kills", "packet_pair", "pipe", "pool_figures", "read", "set_pdeathsig", "shared_file", "shared_trim", "shared_usage", "spawn", "usable_cpu_count", "wait"]

@disjoint_base
class ApplyResult:
    """
    The result of a job, once it is there.

    Made by `Pool.apply_async`. All waiting can be interrupted by signals and gives other threads their turn.
    """
    _scheduled_for: Final = None
    _worker_lost: Final = None
    _write_to: Final = None
    def __repr__(self, /) -> str: ...
    @property
    def _accept_callback(self, /) -> Any | None: ...
    @property
    def _accepted(self, /) -> bool: ...
    @property
    def _cache(self, /) -> Any: ...
    @property
    def _callback(self, /) -> Any | None: ...
    @property
    def _callbacks_propagate(self, /) -> Any: ...
    @property
    def _cancelled(self, /) -> bool: ...
    @property
    def _error_callback(self, /) -> Any | None: ...
    @property
    def _function(self, /) -> Any: ...
    @property
    def _holds_slot(self, /) -> bool: ...
    @property
    def _job(self, /) -> int:
        """
        Number of the job.
        """
    @property
    def _limit_passed(self, /) -> float | None:
        """
        Seconds of the hard limit, if that is what ended the job.
        """
    @property
    def _lost_worker_timeout(self, /) -> float | None: ...
    @property
    def _pool(self, /) -> Any: ...
    @property
    def _soft_timeout(self, /) -> float | None: ...
    @property
    def _success(self, /) -> bool | None: ...
    @property
    def _terminated(self, /) -> Any | None: ...
    @property
    def _time_accepted(self, /) -> float | None: ...
    @property
    def _timeout(self, /) -> float | None: ...
    @property
    def _timeout_callback(self, /) -> Any | None: ...
    @property
    def _value(self, /) -> Any | None:
        """
        The value, or the `ExceptionInfo`, of a job that has ended.
        """
    @property
    def _worker_pid(self, /) -> int | None: ...
    def accepted(self, /) -> bool:
        """
        Whether a worker has begun the job; of a map, whether all items were begun.
        """
    @property
    def correlation_id(self, /) -> Any | None:
        """
        What the caller named the job.
        """
    def discard(self, /) -> None:
        """
        Let go of the job: nobody will ask for its result.
        """
    def get(self, /, timeout: SupportsFloat | SupportsIndex | None = None) -> Any:
        """
        Wait for the result and return it.

        Args:
            timeout: Seconds to wait; None waits for ever.

        Raises:
            multiprocessing.TimeoutError: There is no result after `timeout` seconds.
            Exception: What the task raised, with the remote traceback as its cause; or why it could not return:
                `WorkerLostError`, `TimeLimitExceeded`, `Terminated`, `RestartFreqExceeded`.
        """
    def handle_timeout(self, /, soft: bool = False) -> None:
        """
        Tell the timeout callback, if there is one.
        """
    def ready(self, /) -> bool:
        """
        Whether the job has ended.
        """
    def safe_apply_callback(self, /, fun: Any, *args: "Any", **kwargs: "Any") -> None:
        """
        Call `fun`; an exception is logged and goes no further, unless the job's `callbacks_propagate` names its class.
        """
    def successful(self, /) -> bool:
        """
        Whether the job returned without an exception.

        Raises:
            AssertionError: The job has not ended.
        """
    def terminate(self, /, signum: Any) -> None:
        """
        Record that the job was asked to end by this signal. `Pool.terminate_job` is what ends it.
        """
    def wait(self, /, timeout: SupportsFloat | SupportsIndex | None = None) -> None:
        """
        Wait until the job has ended, for `timeout` seconds at most.
        """
    def worker_pids(self, /) -> list[int]:
        """
        Process ids of the workers that have run the job, or are running it.
        """

@final
class Barrier:
    """
    What a barrier has in shared memory.
    """
    def __new__(cls, /, parties: SupportsIndex, place: tuple[SupportsIndex, SupportsIndex, SupportsIndex] | None = None) -> Barrier:
        """
        A new one for so many parties, or one that another process has.
        """
    def _place(self, /) -> tuple[int, int, int]:
        """
        Where it lives, as for locks.
        """
    def abort(self, /) -> None:
        """
        Have all who wait, and will, find it broken, until it is reset.
        """
    @property
    def broken(self, /) -> bool:
        """
        Whether it is broken.
        """
    @property
    def opening(self, /) -> bool:
        """
        Whether all are there and the last one is about to let them go on.
        """
    def reset(self, /) -> None:
        """
        Begin anew; all who wait find that it was broken.
        """
    def wait(self, /, parties: SupportsIndex, action: Any | None = None, timeout: SupportsFloat | SupportsIndex | None = None) -> int | None:
        """
        Wait until all are there.

        Args:
            parties: How many that is.
            action: What the last one calls before all go on.
            timeout: Seconds to wait; None and inf wait for ever.

        Returns:
            How many were there before; None if the barrier is broken.
        """
    @property
    def waiting(self, /) -> int:
        """
        How many wait.
        """

@final
class Block:
    """
    A block of shared memory, as a buffer of bytes that can be written to. It is given back when it and all views of it are gone.

    Args:
        size: How many bytes.
        clear: Whether they shall be zero. Otherwise they may be what a block of this process has held before.

    Raises:
        MemoryError: There is not that much.
        OSError: No memory or descriptor is left.
    """
    def __len__(self, /) -> int: ...
    def __new__(cls, /, size: SupportsIndex, clear: bool = True) -> Block: ...
    @property
    def address(self, /) -> int:
        """
        Where it begins in the memory of this process.
        """
    @property
    def buffer(self, /) -> Block:
        """
        The block itself, which is a buffer.
        """
    def place(self, /) -> tuple[int, int, int]:
        """
        Where it lives, as for locks.
        """
    @staticmethod
    def receive(place: tuple[SupportsIndex, SupportsIndex, SupportsIndex], size: SupportsIndex) -> Block:
        """
        The block that another process has sent.

        Args:
            place: Where it lives.
            size: How many bytes it has.

        Raises:
            RuntimeError: There is no such thing there.
            OSError: No descriptor is left.
        """
    @property
    def room(self, /) -> int:
        """
        How many bytes it takes: its size, rounded up.
        """

class BoundedSemaphore(Semaphore):
    """
    A semaphore that is never above the value that it was made with.

    Args:
        value: That value.

    Raises:
        OSError: The value is negative or above 2147483647, or no memory or descriptor is left.
    """
    def __enter__(self, /) -> bool: ...
    def __exit__(self, /, kind: Any | None = None, value: Any | None = None, traceback: Any | None = None) -> None: ...
    def __init__(self, /, value: SupportsIndex = 1, ctx: Any | None = None) -> None: ...
    def __new__(cls, /, *args: "object", **kwargs: "object") -> BoundedSemaphore: ...
    def __repr__(self, /) -> Any: ...
    def acquire(self, /, block: Any | None = None, timeout: SupportsFloat | SupportsIndex | None = None) -> bool:
        """
        Acquire it.

        Args:
            block: False to return at once.
            timeout: Seconds to wait; None and inf wait for ever, negative is 0.

        Returns:
            Whether it was acquired.
        """
    def release(self, /) -> None:
        """
        Release it.

        Raises:
            AssertionError: It is a recursive lock that the calling thread does not have.
            ValueError: It is at its maximum.
        """

@final
class Bundle:
    """
    Bytes in several parts, written once and then sealed, for many processes that read them in place.

    Raises:
        OSError: No memory or descriptor is left.
    """
    def __new__(cls, /) -> Bundle: ...
    def begin_part(self, /) -> None:
        """
        End the last part, and begin another one.

        Raises:
            OSError: It is sealed.
        """
    def close(self, /) -> None:
        """
        Let go of the descriptor. Views keep the memory.
        """
    def fileno(self, /) -> int:
        """
        The descriptor's number, to be given to others.

        Raises:
            OSError: It is closed, or not sealed yet.
        """
    def open(self, /) -> list[memoryview]:
        """
        The parts, as read-only views, which keep the memory.

        Raises:
            OSError: It is no bundle, or closed; or no memory is left.
        """
    @staticmethod
    def receive(fd: SupportsIndex) -> Bundle:
        """
        The bundle that another process has made.

        Args:
            fd: Its descriptor, which belongs to this object from now on.

        Raises:
            OSError: It is not open, or not sealed.
        """
    def seal(self, /) -> None:
        """
        From now on nobody can write to it, in whatever process.

        Raises:
            OSError: No memory is left; or it is sealed.
        """
    def write(self, /, data: Any) -> int:
        """
        Add bytes to the last part, as to a file.

        Returns:
            How many bytes they are.

        Raises:
            OSError: No memory is left; or it is sealed.
        """

@final
class Child:
    """
    A child of this process: signals and waiting that cannot hit a stranger with the same number.

    One that was just started is on trial: it is killed when this object goes before `keep` was called. An exception, such as
    that of a signal handler, may end the start before anybody could take the child, and then nobody knows it.
    """
    def __new__(cls, /, pid: SupportsIndex, pidfd: bool = True) -> Child:
        """
        Takes charge of a child that nobody has waited for yet.

        Args:
            pid: The child's process id.
            pidfd: False to do without a process descriptor, as on kernels that have none.

        Raises:
            OSError: There is no such process, or no descriptor is left.
        """
    def __repr__(self, /) -> str: ...
    def keep(self, /) -> None:
        """
        Let the child live on when this object goes.
        """
    @property
    def pid(self, /) -> int:
        """
        The process id.
        """
    def poll(self, /) -> int | None:
        """
        Tell how the child ended, without waiting.

        Returns:
            None while it runs; its exit code, or the negated signal that killed it, or 255 if somebody else took its status.
        """
    @property
    def sentinel(self, /) -> int | None:
        """
        A descriptor that becomes readable when the child ends and stays so; None without process descriptors. It belongs
        to this object.
        """
    def signal(self, /, number: SupportsIndex) -> bool:
        """
        Send a signal to the child, and to nobody else.

        Returns:
            False if the child has ended already.

        Raises:
            OSError: No such signal, or not permitted.
        """
    def signal_group(self, /, number: SupportsIndex) -> bool:
        """
        Send a signal to the child's process group if the child leads one, else to the child alone.

        Returns:
            False if the child has ended already.
        """
    @property
    def status_lost(self, /) -> bool:
        """
        Whether the child ended but its status went to somebody else.
        """
    def wait(self, /, timeout: SupportsFloat | SupportsIndex | None = None) -> int | None:
        """
        Wait until the child has ended.

        Args:
            timeout: Seconds to wait; None and inf wait for ever, 0 and less look and return.

        Returns:
            What `poll` would: None if it still runs.
        """

@disjoint_base
class Condition:
    """
    A condition in shared memory, with its lock: what `billiard.synchronize` makes its class of.
    """
    def __enter__(self, /) -> bool:
        """
        Acquire the lock.
        """
    def __exit__(self, /, *args: "object") -> None:
        """
        Release the lock.
        """
    def __new__(cls, /, *args: "object", **kwargs: "object") -> Condition: ...
    def _grants(self, /) -> int:
        """
        How many notifications nobody has taken yet.
        """
    def _make(self, /, lock: SemLock, place: tuple[SupportsIndex, SupportsIndex, SupportsIndex] | None = None) -> None:
        """
        Make it what it is.

        Args:
            lock: What whoever waits or notifies holds.
            place: Where another process has it; None for a new one.

        Raises:
            OSError: No memory or descriptor is left.
        """
    def _place(self, /) -> tuple[int, int, int]:
        """
        Where it lives, as for locks.
        """
    def _sleepers(self, /) -> int:
        """
        How many wait, as far as it is known that they live.
        """
    def notify(self, /, n: SupportsIndex = 1) -> None:
        """
        Have some of those who wait go on.

        Args:
            n: How many at most.

        Raises:
            AssertionError: The calling thread does not hold the lock.
        """
    def notify_all(self, /) -> None:
        """
        Have all who wait go on.

        Raises:
            AssertionError: The calling thread does not hold the lock.
        """
    def wait(self, /, timeout: SupportsFloat | SupportsIndex | None = None) -> bool:
        """
        Release the lock, wait for a notification, and acquire the lock again.

        Args:
            timeout: Seconds to wait; None and inf wait for ever, 0 and less do not wait.

        Returns:
            False if the time was up first.

        Raises:
            AssertionError: The calling thread does not hold the lock.
        """

@disjoint_base
class Connection:
    """
    One end of a stream of messages.
    """
    def __enter__(self, /) -> Connection: ...
    def __exit__(self, /, exc_type: Any | None = None, exc_value: Any | None = None, exc_tb: Any | None = None) -> None: ...
    def __new__(cls, /, *_args: "Any", **_kwargs: "Any") -> Connection: ...
    @property
    def _handle(self, /) -> int | None:
        """
        The descriptor's number; None once it is closed.
        """
    def _open(self, /, number: SupportsIndex, readable: bool, writable: bool) -> None:
        """
        Begin to use a descriptor, which belongs to this object from now on.

        Args:
            number: The descriptor.
            readable: Whether messages can be received.
            writable: Whether messages can be sent.
        """
    @property
    def _readable(self, /) -> bool: ...
    @property
    def _writable(self, /) -> bool: ...
    def close(self, /) -> None:
        """
        Close this end. A thread that is waiting for the connection goes on waiting, and closes it when it is done.
        """
    @property
    def closed(self, /) -> bool:
        """
        Whether this end has been closed.
        """
    def fileno(self, /) -> int:
        """
        The descriptor's number.

        Raises:
            OSError: The connection is closed on this side.
        """
    @property
    def oob(self, /) -> bool:
        """
        Whether the large buffers of objects travel beside them, in memory that the receiver uses in place: arrays, and whatever else
        pickle protocol 5 sends out of band. False from the start, and then what goes over the wire is what it always was. Both ends
        have to agree: set it on both before anything is sent, or make them with `Pipe(oob=True)`.

        Only `send` and `recv` know of it. `recv_bytes` receives such an object without its buffers.

        Raises:
            OSError: The connection is closed on this side.
            ValueError: It cannot carry descriptors: it is no Unix socket.
        """
    @oob.setter
    def oob(self, /, beside: bool) -> None: ...
    def poll(self, /, timeout: SupportsFloat | SupportsIndex | None = ...) -> bool:
        """
        Tell whether something can be received without waiting. The end of the stream counts.

        Args:
            timeout: Seconds to wait for it; 0 and less look and return, None waits for ever.

        Raises:
            OSError: The connection is closed on this side or cannot receive.
            ValueError: The timeout is nan.
        """
    @property
    def readable(self, /) -> bool:
        """
        Whether messages can be received.
        """
    def recv(self, /) -> Any:
        """
        Receive an object. Waits for it; the end of the stream counts.

        Returns:
            The object that the peer has sent.

        Raises:
            EOFError: The peer has closed its end, and everything it had sent was received.
            OSError: The connection is closed on this side or cannot receive; or the stream ended inside a message.
            BlockingIOError: The connection does not block, and there is no whole message now.
        """
    def recv_bytes(self, /, maxlength: SupportsIndex | None = None) -> bytes:
        """
        Receive one message as bytes. Waits for it; the end of the stream counts.

        Args:
            maxlength: The longest message that is accepted, in bytes; None for any. After a longer one nothing more can be received.

        Raises:
            EOFError: The peer has closed its end, and everything it had sent was received.
            OSError: The message is longer; or the connection is closed on this side or cannot receive; or the stream ended inside a message.
            ValueError: A negative length.
            BlockingIOError: The connection does not block, and there is no whole message now.
        """
    def recv_bytes_into(self, /, buf: Any, offset: SupportsIndex = 0) -> int:
        """
        Receive one message into memory of the caller's. Waits for it; the end of the stream counts.

        Args:
            buf: Where to: anything that can be written to and lies in one piece.
            offset: Where in it the message is to begin, in bytes.

        Returns:
            How many bytes the message has.

        Raises:
            BufferTooShort: It does not fit; it is the exception's argument.
            EOFError: The peer has closed its end, and everything it had sent was received.
            OSError: The connection is closed on this side or cannot receive; or the stream ended inside a message.
            ValueError: The offset is negative or behind the end.
            BlockingIOError: The connection does not block, and there is no whole message now.
        """
    def send(self, /, obj: Any) -> None:
        """
        Send an object, pickled. Waits until the system has taken all of it.

        Args:
            obj: The object. If it cannot be pickled, nothing is sent.

        Raises:
            OSError: The connection is closed on this side or cannot send, or an earlier message was cut off.
            BrokenPipeError: The peer is gone.
            BlockingIOError: The connection does not block, and there is no room for the message now.
        """
    def send_bytes(self, /, buf: Any, offset: SupportsIndex = 0, size: SupportsIndex | None = None) -> None:
        """
        Send bytes as one message. Waits until the system has taken all of it.

        Args:
            buf: Anything with bytes. What does not lie in one piece is copied.
            offset: Where in it the message begins, in bytes.
            size: How many bytes it has; None for all that follow.

        Raises:
            ValueError: Offset or size are negative, or there are not so many bytes.
            OSError: The connection is closed on this side or cannot send, or an earlier message was cut off.
            BrokenPipeError: The peer is gone.
            BlockingIOError: The connection does not block, and there is no room for the message now.
        """
    def send_offset(self, /, buf: Any, offset: SupportsIndex) -> int:
        """
        Write bytes as they are, without a length in front: the rest of a message that was begun otherwise.

        Args:
            buf: Anything with bytes.
            offset: Where in it to begin.

        Returns:
            How many bytes were written: all, or as many as a connection that does not block takes now.

        Raises:
            OSError: The connection is closed on this side.
            BrokenPipeError: The peer is gone.
            BlockingIOError: The connection does not block, and takes nothing now.
        """
    @property
    def writable(self, /) -> bool:
        """
        Whether messages can be sent.
        """

@final
class Doorman:
    """
    Lets in who holds a key. Who says nothing keeps nobody else waiting.

    Args:
        key: The key; None lets everybody in.
        md5: Whether those who know only MD5 are talked to.
        patience: Seconds that somebody may take to prove that it holds the key.

    Raises:
        ValueError: The patience is negative, or not a number.
    """
    def __new__(cls, /, key: SupportsGetItem[int, SupportsIndex] | None, md5: bool = True, patience: SupportsFloat | SupportsIndex | None = None) -> Doorman: ...
    def admit(self, /, listener: SupportsIndex, timeout: SupportsFloat | SupportsIndex | None = None) -> int | None:
        """
        Wait for the next one who may come in.

        Args:
            listener: The listening socket, which is put into non-blocking mode.
            timeout: Seconds to wait; None waits for ever.

        Returns:
            The descriptor of its socket, which belongs to the caller; None if nobody came in time.

        Raises:
            AuthenticationError: Somebody does not hold the key.
            EOFError: Somebody went away without having proved anything.
            OSError: The door was closed, also while somebody waited there; no descriptor is left; or the socket does not listen.
        """
    def close(self, /) -> None:
        """
        Send everybody away who stands at the door, and let nobody in any more. Threads that wait there are told.
        """

@final
class Engine:
    """
    The engine of a pool.
    """
    def __new__(cls, /, workers: SupportsIndex, *, tasks_per_worker: SupportsIndex | None, max_restarts: SupportsIndex | None, restart_window: SupportsFloat | SupportsIndex, terminate: SupportsIndex, soft: SupportsIndex, inspect: SupportsIndex, cpus: SupportsIndex, pickler: Any, retries: SupportsIndex | None = None) -> Engine: ...
    def close(self, /) -> None:
        """
        Accept nothing more; finish what was accepted.
        """
    def end_job(self, /, pid: SupportsIndex, signal: SupportsIndex) -> bool:
        """
        Signal the worker `pid`; what it runs ends as terminated if it dies of it. False: no such worker.
        """
    def grow(self, /, n: SupportsIndex) -> None:
        """
        Add `n` workers.
        """
    def handles(self, /) -> list[Any]:
        """
        Handles of all jobs that have not ended.
        """
    def join(self, /, timeout: SupportsFloat | SupportsIndex | None = None) -> bool:
        """
        Wait until the last worker is gone. False: it took longer than `timeout` seconds.
        """
    def load(self, /) -> tuple[int, int]:
        """
        Tasks that have not ended, and how many of them no worker has been given.
        """
    def next_event(self, /, timeout: SupportsFloat | SupportsIndex | None = None) -> "tuple[Any, ...] | None":
        """
        Wait for the next thing that needs Python. None after `timeout` seconds.

        Returns:
            A tuple whose first item names the event.
        """
    def not_started(self, /, seat: SupportsIndex, generation: SupportsIndex) -> None:
        """
        The worker's process could not be started.
        """
    def phase(self, /) -> str:
        """
        `"running"`, `"draining"`, `"terminating"` or `"broken"`.
        """
    def renew(self, /) -> None:
        """
        Replace every worker once it has finished what it runs.
        """
    def run(self, /) -> None:
        """
        Start the background thread.
        """
    def seat(self, /, seat: SupportsIndex, generation: SupportsIndex) -> Seat:
        """
        The shared memory for the worker of a seat.
        """
    def shrink(self, /, n: SupportsIndex) -> list[int]:
        """
        Send `n` idle workers home, all or none; answers their process ids.
        """
    def start_error(self, /) -> str | None:
        """
        What the last worker has said that could not start, or did not end as it should.
        """
    def started(self, /, seat: Seat, child: Child, name: str) -> None:
        """
        The worker's process runs.
        """
    def submit(self, /, pool: Any, function: Any, args: Any, kwargs: Any, callback: Any, error_callback: Any, accept_callback: Any, timeout_callback: Any, soft_timeout: SupportsFloat | SupportsIndex | None, timeout: SupportsFloat | SupportsIndex | None, lost_worker_timeout: SupportsFloat | SupportsIndex | None, propagate: Any, correlation_id: Any, slot: bool, tell: bool, name: Any | None = None) -> ApplyResult:
        """
        Submit one call. `name` is what a report about its loss calls it; None: by the function's name.
        """
    def submit_map(self, /, pool: Any, function: Any, items: Any, chunk: SupportsIndex, star: bool, callback: Any, error_callback: Any, soft_timeout: SupportsFloat | SupportsIndex | None, timeout: SupportsFloat | SupportsIndex | None, lost_worker_timeout: SupportsFloat | SupportsIndex | None, tell: bool) -> MapResult:
        """
        Submit one call for each item of a sequence, in chunks.
        """
    def submit_stream(self, /, pool: Any, function: Any, inputs: Any, chunk: SupportsIndex, window: SupportsIndex, ordered: bool, soft_timeout: SupportsFloat | SupportsIndex | None, timeout: SupportsFloat | SupportsIndex | None, lost_worker_timeout: SupportsFloat | SupportsIndex | None) -> tuple[IMapIterator, Feeder]:
        """
        Open a stream: an iterator over results, and the feeder that takes the inputs.
        """
    def sweep(self, /) -> None:
        """
        Let go of the handles of jobs that have ended.
        """
    def target(self, /) -> int:
        """
        How many workers are wanted.
        """
    def terminate(self, /) -> None:
        """
        End everything now.
        """

@disjoint_base
class Event:
    """
    A flag in shared memory that can be waited for: what `billiard.synchronize` makes its class of.
    """
    def __new__(cls, /, *args: "object", **kwargs: "object") -> Event: ...
    def _make(self, /, place: tuple[SupportsIndex, SupportsIndex, SupportsIndex] | None = None) -> None:
        """
        Make it what it is: a new one, or one that another process has.
        """
    def _place(self, /) -> tuple[int, int, int]:
        """
        Where it lives, as for locks.
        """
    def clear(self, /) -> None:
        """
        Take it back.
        """
    def is_set(self, /) -> bool:
        """
        Tell whether it is set.
        """
    def set(self, /) -> None:
        """
        Set it, and have all who wait go on.
        """
    def wait(self, /, timeout: SupportsFloat | SupportsIndex | None = None) -> bool:
        """
        Wait until it is set.

        Args:
            timeout: Seconds to wait; None and inf wait for ever, 0 and less only look.

        Returns:
            Whether it is set, or was meanwhile.
        """

@final
class Feeder:
    """
    Takes inputs and submits them, as the consumer makes room. Runs in a thread of its own, since inputs may take their time.
    """
    def run(self, /) -> None:
        """
        Feed the stream until the inputs end, raise, or nobody wants them.
        """

@disjoint_base
class Guarded:
    """
    An object and its lock: what `billiard.sharedctypes` makes its classes of.
    """
    def __enter__(self, /) -> Any: ...
    def __exit__(self, /, *args: "object") -> Any: ...
    def __new__(cls, /, *args: "object", **kwargs: "object") -> Guarded: ...
    def _count_items(self, /) -> int:
        """
        How many items the object has. Their number never changes, so the lock is not needed.
        """
    def _get_item(self, /, i: Any) -> Any:
        """
        Return an item, or a list of some, under the lock.
        """
    @property
    def _lock(self, /) -> Any: ...
    def _make(self, /, obj: Any, lock: Any, native: bool) -> None:
        """
        Make it what it is.

        Args:
            obj: What is guarded.
            lock: Whatever has `acquire` and `release`.
            native: Whether it is a lock of this package and of no subclass.
        """
    @property
    def _obj(self, /) -> Any: ...
    def _set_item(self, /, i: Any, value: Any) -> None:
        """
        Set an item, or some, under the lock.
        """
    @property
    def acquire(self, /) -> Any:
        """
        Acquire the lock, as it is acquired.
        """
    def get_lock(self, /) -> Any:
        """
        Return the lock.
        """
    def get_obj(self, /) -> Any:
        """
        Return the object itself, without the lock.
        """
    @property
    def release(self, /) -> Any:
        """
        Release the lock, as it is released.
        """

@final
class GuardedAttribute:
    """
    An attribute of a guarded object that is read and set under its lock.

    Args:
        name: Which attribute.
    """
    def __delete__(self, instance: Any, /) -> None: ...
    def __get__(self, instance: Any | None, owner: Any | None = None, /) -> Any: ...
    def __new__(cls, /, name: str) -> GuardedAttribute: ...
    def __set__(self, instance: Any, value: Any, /) -> None: ...

@final
class Hall:
    """
    Where the clients of a manager's server sit. What can be answered at once is answered here, by the thread that serves.

    Args:
        objects: Ident -> (object, names of the methods that may be called, method -> typeid).
        quick: The types of which no method can keep anybody waiting.

    Raises:
        OSError: No descriptor is left.
    """
    def __len__(self, /) -> int: ...
    def __new__(cls, /, objects: "dict[str, Any]", quick: "frozenset[type]") -> Hall: ...
    def abandon(self, /) -> None:
        """
        Close all seats, in a forked child.
        """
    def adopt(self, /, number: SupportsIndex) -> int:
        """
        Give a client a seat.

        Args:
            number: The descriptor of its socket, which belongs to the hall from now on.

        Returns:
            The number of the seat.

        Raises:
            OSError: It is not open, or no more can be watched.
        """
    def serve(self, /, server: Any) -> None:
        """
        Answer whoever asks, until `stop` is called.

        Args:
            server: Knows what is not decided here: ``_desk(seat, request)``, ``_reply(seat, request)``, ``_failed(exception)``,
                ``_unsendable(answer, exception)``, ``_hand_over(seat, line)``, ``_parted(seat)``.
        """
    def stop(self, /) -> None:
        """
        Have `serve` return.
        """

@disjoint_base
class IMapIterator:
    """
    Results of `Pool.imap`, in the order of the inputs.
    """
    _worker_lost: Final = None
    def __iter__(self, /) -> IMapIterator: ...
    def __next__(self, /) -> Any: ...
    @property
    def _cache(self, /) -> Any: ...
    @property
    def _job(self, /) -> int: ...
    @property
    def _length(self, /) -> int | None: ...
    @property
    def _lost_worker_timeout(self, /) -> float | None: ...
    @property
    def _ready(self, /) -> bool: ...
    def next(self, /, timeout: SupportsFloat | SupportsIndex | None = None) -> Any:
        """
        Return the next result.

        Args:
            timeout: Seconds to wait; None waits for ever.

        Raises:
            StopIteration: There are no further results.
            multiprocessing.TimeoutError: There is none after `timeout` seconds; it can be asked for again.
            Exception: What the task, or the input, raised at this position. The iteration can go on after it.
        """
    def ready(self, /) -> bool:
        """
        Whether every result is there and was taken.
        """
    def worker_pids(self, /) -> list[int]:
        """
        Process ids of the workers that run parts of it now.
        """

class IMapUnorderedIterator(IMapIterator):
    """
    Results of `Pool.imap_unordered`, as they arrive.
    """

@final
class Inlet:
    """
    The end of a pipe that messages are read from, bit by bit as they come.

    Args:
        number: The descriptor. It stays the caller's.

    Raises:
        OSError: There is no such descriptor, or none is left.
    """
    def __new__(cls, /, number: SupportsIndex) -> Inlet: ...
    def close(self, /) -> None:
        """
        Close the pipe's end here. Doing so again does nothing.
        """
    def take(self, /) -> "bytes | None":
        """
        Take the bytes of a message. None if not all of them are there yet. Never waits.

        Raises:
            EOFError: Nobody has the other end any more.
            OSError: What comes is no message.
        """

@final
class Line:
    """
    A connection on which questions and answers take turns. Pickled objects are sent and received, as by `Connection`; what is
    read ahead belongs to it alone.

    Args:
        number: The descriptor of a socket, which belongs to this object from now on.

    Raises:
        OSError: It is not open.
    """
    def __new__(cls, /, number: SupportsIndex) -> Line: ...
    def ask(self, /, question: Any) -> Any:
        """
        Send an object and wait for the answer to it.

        If anything is raised once the object has been pickled the line is closed: an answer that nobody waits for any more would
        be taken for the next one.

        Raises:
            EOFError: The peer has closed its end.
            OSError: The line is closed, or another thread uses it.
            BrokenPipeError: The peer is gone.
        """
    def close(self, /) -> None:
        """
        Close this end.
        """
    @property
    def closed(self, /) -> bool:
        """
        Whether it is closed, or used by another thread.
        """
    def fileno(self, /) -> int:
        """
        The descriptor's number.

        Raises:
            OSError: The line is closed, or another thread uses it.
        """
    def recv(self, /) -> Any:
        """
        Receive an object. Waits for it.

        Raises:
            EOFError: The peer has closed its end.
            OSError: The line is closed, or another thread uses it; or what came is no message.
        """
    def send(self, /, obj: Any) -> None:
        """
        Send an object.

        Raises:
            OSError: The line is closed, or another thread uses it.
            BrokenPipeError: The peer is gone.
        """

class Lock(SemLock):
    """
    A lock. Any thread of any process may release it.

    If the process that has acquired it dies, the lock goes to whoever waits for it or asks next; then `abandoned` is true,
    and a warning is logged.
    """
    def __enter__(self, /) -> bool: ...
    def __exit__(self, /, kind: Any | None = None, value: Any | None = None, traceback: Any | None = None) -> None: ...
    def __init__(self, /, ctx: Any | None = None) -> None: ...
    def __new__(cls, /, *args: "object", **kwargs: "object") -> Lock: ...
    def __repr__(self, /) -> Any: ...
    def acquire(self, /, block: Any | None = None, timeout: SupportsFloat | SupportsIndex | None = None) -> bool:
        """
        Acquire it.

        Args:
            block: False to return at once.
            timeout: Seconds to wait; None and inf wait for ever, negative is 0.

        Returns:
            Whether it was acquired.
        """
    def release(self, /) -> None:
        """
        Release it.

        Raises:
            AssertionError: It is a recursive lock that the calling thread does not have.
            ValueError: It is at its maximum.
        """

class MapResult(ApplyResult):
    """
    The result of a map: a list, in the order of the input.

    Made by `Pool.map_async` and `Pool.starmap_async`. The first chunk that fails decides the error and ends the job.
    """
    @property
    def _chunksize(self, /) -> int: ...
    @property
    def _length(self, /) -> int: ...
    @property
    def _number_left(self, /) -> int:
        """
        Chunks that have not ended.
        """

@disjoint_base
class MessageQueue:
    """
    What the queues of the package are: put, get and what goes with them.
    """
    def __new__(cls, /, *_args: "object", **_kwargs: "object") -> MessageQueue: ...
    def _close(self, /) -> None:
        """
        Note that this process will neither put nor get any more.
        """
    @property
    def _closed(self, /) -> bool:
        """
        Whether this process has closed the queue.
        """
    def _descriptors(self, /) -> tuple[int, int]:
        """
        The descriptors for `_take`; they stay this object's.
        """
    def _join(self, /) -> None:
        """
        Wait until every object that was put was reported as done.
        """
    def _make(self, /, most: SupportsIndex, most_bytes: SupportsIndex | None) -> None:
        """
        Make the queue itself.

        Args:
            most: How many messages it holds.
            most_bytes: How many bytes they may take for another one to be put; None for any number.

        Raises:
            OSError: No memory or descriptor is left.
        """
    def _pickle_by(self, /, pickler: Any, short: bool) -> None:
        """
        Have objects pickled in another way than is usual, from the start.

        Args:
            pickler: A class of picklers.
            short: Whether what is simple may be sent without them.
        """
    def _take(self, /, memory: SupportsIndex, bell: SupportsIndex) -> None:
        """
        Take over the queue that another process has made.

        Args:
            memory: Its first descriptor, which belongs to this object from now on.
            bell: The second one.

        Raises:
            OSError: The descriptors are not open.
            ValueError: They are not those of a queue.
        """
    def _task_done(self, /) -> None:
        """
        Report that the task of one object that was got is done.

        Raises:
            ValueError: As many were reported as were put.
        """
    def _unfinished(self, /) -> int:
        """
        How many objects were put that were not reported as done.
        """
    def empty(self, /) -> bool:
        """
        Tell whether there is no object in the queue.
        """
    def fileno(self, /) -> int:
        """
        Give a descriptor that is readable while there is an object in the queue, for `select` and its kind.

        Whoever is faster may take the object away: use `get_nowait`. From the first call on, putting into an empty queue and
        emptying it cost a system call each.
        """
    def full(self, /) -> bool:
        """
        Tell whether no object can be put until one is got.
        """
    def get(self, /, block: "bool" = ..., timeout: SupportsFloat | SupportsIndex | None = None, *, eof: "bool" = ...) -> Any:
        """
        Get an object out of the queue.

        Args:
            block: False not to wait for one.
            timeout: Seconds to wait; None for as long as it takes, 0 and less not at all.
            eof: True to be told when there is nothing to wait for: the queue is empty, and every process that has put into it
                has ended or closed it. The calling process does not count, and as long as nobody has put anything, somebody
                may.

        Raises:
            queue.Empty: There was none.
            EOFError: There will be none, with `eof`.
            ValueError: The queue is closed, or the timeout is nan.
            Exception: What unpickling raises. The object is gone from the queue.
        """
    def get_many(self, /, most: SupportsIndex | None = None, block: "bool" = ..., timeout: SupportsFloat | SupportsIndex | None = None, *, eof: "bool" = ...) -> "list[object]":
        """
        Get several objects out of the queue: as many as there are, at least one.

        Args:
            most: How many at most; None for no limit.
            block: False not to wait for the first one.
            timeout: Seconds to wait for it; None for as long as it takes, 0 and less not at all.
            eof: As for `get`.

        Returns:
            The objects, in the order in which they were put.

        Raises:
            queue.Empty: There was none.
            EOFError: There will be none, with `eof`.
            ValueError: The queue is closed, the timeout is nan, or `most` is less than 1.
            Exception: What unpickling raises. All of them are gone from the queue.
        """
    def get_nowait(self, /) -> Any:
        """
        Get an object out of the queue if there is one now.

        Raises:
            queue.Empty: There is none.
        """
    def put(self, /, obj: Any, block: "bool" = ..., timeout: SupportsFloat | SupportsIndex | None = None) -> None:
        """
        Put an object into the queue.

        It is pickled at once, and when the call returns it is in the queue, whatever becomes of this process.

        Args:
            obj: Anything that can be pickled.
            block: False not to wait for room in a full queue.
            timeout: Seconds to wait for it; None for as long as it takes, 0 and less not at all.

        Raises:
            queue.Full: There was no room.
            ValueError: The queue is closed, or the timeout is nan.
            OSError: There is no memory left.
            Exception: What pickling raises, unless `_on_queue_feeder_error` does something else with it.
        """
    def put_many(self, /, objs: Any, block: "bool" = ..., timeout: SupportsFloat | SupportsIndex | None = None) -> None:
        """
        Put several objects into the queue, one after the other.

        As many as there is room for become visible together, and nobody else's come between them.

        Args:
            objs: Objects that can be pickled. If one cannot, none is put, unless `_on_queue_feeder_error` returns.
            block: False not to wait for room in a full queue.
            timeout: Seconds to wait for it; None for as long as it takes, 0 and less not at all.

        Raises:
            queue.Full: There was no room for all of them. Its only argument is how many were put.
            ValueError: The queue is closed, or the timeout is nan.
            OSError: There is no memory left.
        """
    def put_nowait(self, /, obj: Any) -> None:
        """
        Put an object into the queue if there is room for it now.

        Raises:
            queue.Full: There is none.
        """
    def qsize(self, /) -> int:
        """
        Tell how many objects are in the queue. When the answer is there, it may be different already.
        """

@final
class Mouth:
    """
    Writes messages to a pipe.

    Args:
        number: The descriptor of the pipe's end. It stays the caller's.

    Raises:
        OSError: There is no such descriptor, or none is left.
    """
    def __new__(cls, /, number: SupportsIndex) -> Mouth: ...
    def say(self, /, message: "tuple[Any, ...]", wait: "bool" = True) -> "bool":
        """
        Write a message. Waits until the pipe has taken all of it.

        A signal handler that raises before the first byte is written keeps the message back. Later, the message is finished
        first; only an exit of the process does not wait for that.

        Args:
            message: A tuple. If it cannot be pickled, nothing is written.
            wait: False to write it only if the pipe has room for it now; for messages that are shorter than a page.

        Returns:
            Whether it was written.

        Raises:
            BrokenPipeError: Nobody has the other end any more; or an earlier message was left unfinished.
        """

@final
class Outlet:
    """
    The end of a pipe that tasks are written to, and the task that is on its way.

    Args:
        number: The descriptor. It stays the caller's.

    Raises:
        OSError: There is no such descriptor, or none is left.
    """
    def __new__(cls, /, number: SupportsIndex) -> Outlet: ...
    def close(self, /) -> None:
        """
        Close the pipe's end here; no task is taken any more. Doing so again does nothing.
        """
    def end(self, /, message: bytes) -> None:
        """
        Write a last message, after the task that is here. No other is taken, and nothing is written a second time.
        """
    def flush(self, /) -> None:
        """
        Write more of the task, as much as there is room for.
        """
    def give_back(self, /, waiting: "Any") -> "None":
        """
        Put the task back in front of those that wait, and take no other one.
        """
    def release(self, /) -> None:
        """
        Forget the task: it is done.
        """
    def take(self, /, waiting: "Any") -> "bool":
        """
        Take the first of the tasks that wait, and write what there is room for of its `message`. Never waits.

        Args:
            waiting: A deque.

        Returns:
            Whether it was taken; not if there is none, or one is here already.
        """
    @property
    def task(self, /) -> Any | None:
        """
        The task that was taken and not released; None if there is none.
        """
    @property
    def waits(self, /) -> bool:
        """
        Whether a part of the task waits for room.
        """

@final
class Parent:
    """
    The process that a child belongs to.
    """
    def __new__(cls, /, pid: SupportsIndex, descriptor: SupportsIndex | None = None) -> Parent:
        """
        The process `pid`, as it was told to a child.

        Args:
            pid: Its process id.
            descriptor: Its process descriptor, which belongs to this object from now on; None where there are none.

        Raises:
            OSError: There is no such descriptor.
        """
    def is_alive(self, /) -> bool:
        """
        Whether the process still runs.
        """
    @staticmethod
    def own() -> Parent:
        """
        This process, for a child that it is about to start.

        Raises:
            OSError: No descriptor is left.
        """
    @property
    def pid(self, /) -> int:
        """
        The process id.
        """
    @property
    def sentinel(self, /) -> int | None:
        """
        A descriptor that becomes readable when the process ends and stays so; None without process descriptors. It belongs
        to this object.
        """
    def watch(self, /, may_live: bool) -> None:
        """
        From now on, the calling process does not outlive that one.

        Args:
            may_live: True to end only if that one was killed by a signal, and to live on if it has left by itself.

        Raises:
            OSError: The system has no room for the thread that watches.
        """

@final
class Pump:
    """
    Drives an engine in place of its background thread and of the pool's service thread.

    Nobody else may run the engine. Everything is called on the thread that calls `pump`.
    """
    def __new__(cls, /, engine: Engine) -> Pump:
        """
        Drive `engine` from now on.
        """
    def fileno(self, /) -> int:
        """
        The descriptor that is readable when `pump` has something to do.
        """
    def forget(self, /) -> None:
        """
        Drop what there is to tell about jobs: the owner wants to hear nothing more of those that have ended.
        """
    def pump(self, /, handle: Any, release: Any, settle: Any) -> int:
        """
        Look after everything that is due, and call whoever wants to hear of it. Never waits.

        Args:
            handle: Called with each event that is not about a job: a tuple whose first item names it.
            release: Called for each job that has ended, before its callbacks; None if nobody counts them.
            settle: Called with the result and the `ExceptionInfo` of each job that has failed; answers the one that is
                told. None: it is told as it is.

        Returns:
            How many events there were.

        Raises:
            BaseException: What a callback has raised that is no `Exception`, or a `MemoryError`, or named by the job's
                `callbacks_propagate`; or what `handle` has raised. The rest is for the next call.
        """
    def wait(self, /, timeout: SupportsFloat | SupportsIndex | None = None) -> bool:
        """
        Wait until `pump` has something to do. False: it took longer than `timeout` seconds.
        """
    def withdraw(self, /, results: SupportsGetItem[int, ApplyResult] | None = None) -> list[Any]:
        """
        Take jobs back that no worker has begun: they will not run, and none of their callbacks is called.

        Args:
            results: The results that `submit` has returned; None takes back all jobs.

        Returns:
            The results of those jobs that were taken back. The others run, or have ended.
        """

class RLock(SemLock):
    """
    A lock that the thread which has it may acquire again, and that only this thread releases.

    If its process dies, the lock goes on as a `Lock` does.
    """
    def __enter__(self, /) -> bool: ...
    def __exit__(self, /, kind: Any | None = None, value: Any | None = None, traceback: Any | None = None) -> None: ...
    def __init__(self, /, ctx: Any | None = None) -> None: ...
    def __new__(cls, /, *args: "object", **kwargs: "object") -> RLock: ...
    def __repr__(self, /) -> Any: ...
    def acquire(self, /, block: Any | None = None, timeout: SupportsFloat | SupportsIndex | None = None) -> bool:
        """
        Acquire it.

        Args:
            block: False to return at once.
            timeout: Seconds to wait; None and inf wait for ever, negative is 0.

        Returns:
            Whether it was acquired.
        """
    def release(self, /) -> None:
        """
        Release it.

        Raises:
            AssertionError: It is a recursive lock that the calling thread does not have.
            ValueError: It is at its maximum.
        """

@final
class Runtime:
    """
    A worker at work.
    """
    @property
    def completed(self, /) -> int:
        """
        Tasks that were finished.
        """
    def note_end(self, /) -> None:
        """
        Note that a signal has just told the worker to end.
        """
    def serve(self, /, max_tasks: SupportsIndex | None = None, memory_limit: SupportsIndex | None = None, prepare: Any | None = None) -> bool:
        """
        Make calls until there is a reason to leave.

        Args:
            max_tasks: Leave after so many tasks.
            memory_limit: Leave when the resident memory is above so many KiB after a task.
            prepare: Called with each result before it is sent; returns what is sent.

        Returns:
            True if the worker has done its share, false if it was told to leave.
        """
    def soft_limit_is_due(self, /) -> bool:
        """
        Whether the soft-limit signal that has just arrived is meant for the call that is being made: the pool names the task
        it is for; one that names nobody was sent by hand, and is for whatever runs.
        """
    def up(self, /) -> None:
        """
        Tell the parent that tasks may come.
        """

@final
class Seat:
    """
    A worker's place in the pool: made by the parent, taken by the worker.
    """
    def described(self, /) -> tuple[int, int, bool]:
        """
        Which seat this is, and whether its worker may spin.
        """
    def note(self, /, text: str) -> None:
        """
        Tell the parent, in words, why this worker ends.
        """
    @property
    def notebook(self, /) -> int:
        """
        A descriptor for crash handlers: what is written to it is told to the parent.
        """
    @staticmethod
    def received(seat: SupportsIndex, generation: SupportsIndex, spin: bool, descriptors: SupportsLenAndGetItem[SupportsIndex]) -> Seat:
        """
        The seat that another process has made, in the worker that is to take it.

        Args:
            seat, generation, spin: As `described` tells them.
            descriptors: Those of `shared`, in the same order; they belong to this object from now on.

        Raises:
            OSError: There is no such descriptor, or it is not of a seat.
        """
    def shared(self, /) -> list[int]:
        """
        The descriptors that a worker needs which is no copy of this process. They belong to this object.
        """
    def take(self, /, pickler: Any) -> Runtime:
        """
        Take the seat, in the worker's process.

        Args:
            pickler: The class of picklers for what tasks return.
        """

@disjoint_base
class SemLock:
    """
    A lock or a semaphore between processes; usually one of the classes that inherit from it.

    Args:
        kind: 0 for a recursive lock, 1 for a semaphore.
        value: How often it can be acquired before somebody releases it.
        maxvalue: The value above which it cannot be released.
        ctx: Ignored: it goes to children of every start method.

    Raises:
        OSError: There is no such value, or no memory or descriptor is left.
        ValueError: There is no such kind.
    """
    def __enter__(self, /) -> bool: ...
    def __exit__(self, /, kind: Any | None = None, value: Any | None = None, traceback: Any | None = None) -> None: ...
    def __getstate__(self, /) -> Any: ...
    def __init__(self, /, kind: SupportsIndex, value: SupportsIndex, maxvalue: SupportsIndex, ctx: Any | None = None) -> None: ...
    def __new__(cls, /, *args: "object", **kwargs: "object") -> SemLock: ...
    def __setstate__(self, /, state: Any) -> None: ...
    def _after_fork(self, /) -> None:
        """
        Forget how often this process has it. A lock knows that by itself.
        """
    @staticmethod
    def _cleanup(name: str) -> None:
        """
        Remove the name of a semaphore of the original.

        Raises:
            FileNotFoundError: Always: those of this package have none.
        """
    def _count(self, /) -> int:
        """
        How often this process has it.
        """
    def _get_value(self, /) -> int:
        """
        How often it could be acquired now.
        """
    def _is_mine(self, /) -> bool:
        """
        Whether the calling thread has acquired it last, and still has it.
        """
    def _is_zero(self, /) -> bool:
        """
        Whether it could not be acquired now.
        """
    def _make_methods(self, /) -> None:
        """
        Have `acquire` and `release`: every object has them from the start.
        """
    @staticmethod
    def _make_name() -> Any:
        """
        A name such as semaphores of the original have.
        """
    def _place(self, /) -> tuple[int, int, int]:
        """
        Where it lives.

        Returns:
            The descriptor of its memory, which belongs to this process, its position there, and its length.

        Raises:
            RuntimeError: Somebody has closed the descriptor.
        """
    @classmethod
    def _rebuild(cls, /, handle: SupportsIndex, kind: SupportsIndex, maxvalue: SupportsIndex, name: str | None) -> None:
        """
        Find a semaphore by its name or by its handle, as the original's native object does.

        Raises:
            FileNotFoundError: There is none of this name: those of this package have no names.
            ValueError: There is only a handle, which tells where it lies in its memory, but not in which.
        """
    def _receive(self, /, place: tuple[SupportsIndex, SupportsIndex, SupportsIndex], kind: SupportsIndex) -> None:
        """
        Make it the one that another process has sent.

        Args:
            place: Where it lives.
            kind: What it is.

        Raises:
            RuntimeError: There is no such thing there.
            OSError: No descriptor is left.
        """
    @property
    def _semlock(self, /) -> SemLock:
        """
        The native object: this one.
        """
    @property
    def abandoned(self, /) -> Any:
        """
        Whether its holder has died: true for a lock from then on, and until it is set to False.

        For a semaphore, how many the dead have taken that nobody has given back.
        """
    @abandoned.setter
    def abandoned(self, /, value: bool) -> None: ...
    def acquire(self, /, block: Any | None = None, timeout: SupportsFloat | SupportsIndex | None = None) -> bool:
        """
        Acquire it.

        Args:
            block: False to return at once.
            timeout: Seconds to wait; None and inf wait for ever, negative is 0.

        Returns:
            Whether it was acquired.
        """
    @property
    def handle(self, /) -> int:
        """
        A number that tells it apart from others of the same segment of memory.
        """
    @property
    def kind(self, /) -> int:
        """
        0 for a recursive lock, 1 for everything else.
        """
    @property
    def maxvalue(self, /) -> int:
        """
        The value when nobody has acquired it.
        """
    @property
    def name(self, /) -> str | None:
        """
        None: it has no name that could be left behind.
        """
    def release(self, /) -> None:
        """
        Release it.

        Raises:
            AssertionError: It is a recursive lock that the calling thread does not have.
            ValueError: It is at its maximum.
        """

class Semaphore(SemLock):
    """
    A semaphore.

    What a process has taken when it dies stays taken; `abandoned` tells how much that is.

    Args:
        value: How often it can be acquired before somebody releases it.

    Raises:
        OSError: The value is negative or above 2147483647, or no memory or descriptor is left.
    """
    def __enter__(self, /) -> bool: ...
    def __exit__(self, /, kind: Any | None = None, value: Any | None = None, traceback: Any | None = None) -> None: ...
    def __init__(self, /, value: SupportsIndex = 1, ctx: Any | None = None) -> None: ...
    def __new__(cls, /, *args: "object", **kwargs: "object") -> Semaphore: ...
    def __repr__(self, /) -> Any: ...
    def acquire(self, /, block: Any | None = None, timeout: SupportsFloat | SupportsIndex | None = None) -> bool:
        """
        Acquire it.

        Args:
            block: False to return at once.
            timeout: Seconds to wait; None and inf wait for ever, negative is 0.

        Returns:
            Whether it was acquired.
        """
    def get_value(self, /) -> int:
        """
        Return how often it could be acquired now.
        """
    def release(self, /) -> None:
        """
        Release it.

        Raises:
            AssertionError: It is a recursive lock that the calling thread does not have.
            ValueError: It is at its maximum.
        """

@final
class SharedView:
    """
    A view of shared memory. The memory is given back when the last view of it is gone.
    """
    def __len__(self, /) -> int: ...

@final
class Zygote:
    """
    A fork server, as its owner holds it. It ends when this object does.

    Args:
        control: One end of `packet_pair`, which belongs to this object from now on.
        process: The server's process.
    """
    def __new__(cls, /, control: SupportsIndex, process: Child) -> Zygote: ...
    def dismiss(self, /) -> None:
        """
        Send it away. Its children live on.
        """
    @property
    def gone(self, /) -> bool:
        """
        Whether it has ended, as far as has been heard.
        """
    def load(self, /, what: bytes) -> None:
        """
        Have it load something, and wait until it has.

        Raises:
            BrokenPipeError: The fork server has ended.
        """
    def start(self, /, data: bytes, keep: SupportsGetItem[int, SupportsIndex]) -> Child:
        """
        Start a child, which the caller has to keep.

        Args:
            data: What it is given.
            keep: The descriptors that it is given.

        Raises:
            BrokenPipeError: The fork server has ended; nothing was started.
            ChildProcessError: The child ended before it could say that it runs.
            OSError: No process, memory or descriptor is left.
            ValueError: Too many descriptors.
        """

@final
class ZygoteServer:
    """
    The fork server's own end.

    Args:
        control: The other end of `packet_pair`, which belongs to this object from now on.
        owner: Process id of the process it serves.
        owner_descriptor: Its process descriptor, likewise; None where there are none.
    """
    def __new__(cls, /, control: SupportsIndex, owner: SupportsIndex, owner_descriptor: SupportsIndex | None = None) -> ZygoteServer: ...
    def born(self, /, number: SupportsIndex, pid: SupportsIndex) -> None:
        """
        The child was forked.
        """
    def failed(self, /, number: SupportsIndex, errno: SupportsIndex) -> None:
        """
        No child could be forked.
        """
    def introduce(self, /, number: SupportsIndex) -> bool:
        """
        In the child: tell the owner that it runs, and let go of everything that is the server's.

        Returns:
            False if there is no owner any more.
        """
    def loaded(self, /, number: SupportsIndex) -> None:
        """
        What was to be loaded has been dealt with.
        """
    def next(self, /) -> tuple[str, int, bytes, list[int]] | None:
        """
        Wait for the next order, and meanwhile tell the owner how children have ended.

        Returns:
            ("fork", number, data, descriptors), ("load", number, what, []), or None when the owner is gone.
        """

def answer_challenge(key: bytes, message: bytes, md5: bool = True) -> bytes:
    """
    Answer a message that should be a challenge.

    Raises:
        AuthenticationError: It is none, or asks for a digest that is not to be had.
    """

def build_info() -> dict[str, str]:
    """
    What this extension was built from, and how: `version`, `profile`, `features`.
    """

def fork(in_child: Any, pidfd: bool = True) -> Child:
    """
    Duplicates this process, like `os.fork`: all `os.register_at_fork` hooks run. The child calls a function and leaves with
    what that returns, or with 1 if it raises; it never returns from here.

    Args:
        in_child: What the child calls; returns the exit code.
        pidfd: False to do without a process descriptor, as on kernels that have none.

    Returns:
        The child, which the caller has to keep.

    Raises:
        OSError: The system has no room for another process, or no descriptor is left; then no child is left either.
    """

def get_pdeathsig() -> int:
    """
    The signal that this process gets when the thread that started it ends; 0 for none.
    """

def has_pidfd() -> bool:
    """
    Whether this kernel gives out process descriptors.
    """

def introduce(socket: SupportsIndex, key: bytes, md5: bool = True) -> int:
    """
    Prove to a listener that we hold the key, and have it prove the same.

    Args:
        socket: The descriptor of a socket that is connected to it. It is closed if anything is raised.
        key: The key.
        md5: Whether one who knows only MD5 is talked to.

    Returns:
        The descriptor, which belongs to the caller.

    Raises:
        AuthenticationError: One of both does not hold the key.
        EOFError: The listener has closed the connection.
    """

def judge_answer(key: bytes, challenge: bytes, answer: bytes, md5: bool = True) -> None:
    """
    Judge the answer to a challenge of `new_challenge`.

    Raises:
        AuthenticationError: It is not of somebody who holds the key.
    """

def mem_available() -> int:
    """
    What the system could give to new work without swapping, in KiB.
    """

def mem_limit() -> int | None:
    """
    The least memory limit of this process's control groups, in bytes; None without a limit.
    """

def mem_rss(pid: SupportsIndex | None = None) -> int:
    """
    The resident memory now, in KiB: of this process, or of another one.

    Raises:
        OSError: There is no such process.
    """

def mem_rss_peak(pid: SupportsIndex) -> int:
    """
    The most resident memory that a process ever had, in KiB.

    Raises:
        OSError: There is no such process, or it has ended.
    """

def memory_file(bytes: bytes) -> int:
    """
    Anonymous memory that holds some bytes, as a file that is read from the start.

    Returns:
        Its descriptor, which belongs to the caller.

    Raises:
        OSError: No memory or descriptor is left.
    """

def named_create(name: str, size: SupportsIndex, keeper: SupportsIndex | None = None) -> int:
    """
    Make shared memory of zeros, and say that it is in use here.

    Args:
        name: Its name, without slashes.
        size: How many bytes.
        keeper: The process id of the one while which runs nobody sweeps the name away; None to leave it to `named_remove`.

    Returns:
        The descriptor, which belongs to the caller.

    Raises:
        FileExistsError: There is one of that name.
        OSError: No memory or descriptor is left.
        ValueError: No file can have this name.
    """

def named_let_go(fd: SupportsIndex) -> None:
    """
    Say that shared memory is not in use here any more, although it is still open.

    Raises:
        OSError: It is not.
    """

def named_open(name: str) -> int:
    """
    Open shared memory, and say that it is in use here.

    Returns:
        The descriptor, which belongs to the caller.

    Raises:
        FileNotFoundError: There is none of that name.
        OSError: It may not be opened, or no descriptor is left.
        ValueError: No file can have this name.
    """

def named_remove(name: str) -> None:
    """
    Remove a name. Whoever has the memory open keeps it.

    Raises:
        FileNotFoundError: There is none.
        ValueError: No file can have this name.
    """

def named_remove_all(prefix: str) -> None:
    """
    Remove the names that begin so, whoever uses the memory.
    """

def named_sweep(leaving: bool = False) -> None:
    """
    Remove the names that nobody needs any more: whose keeper is over, and which nobody has open.

    Args:
        leaving: Whether this process counts as over.
    """

def new_challenge() -> bytes:
    """
    A challenge that nobody has seen before.

    Raises:
        OSError: The system has no randomness to give.
    """

def oom_kills() -> int | None:
    """
    How many processes the kernel has killed for memory in this process's control group; None where it does not count.
    """

def packet_pair() -> tuple[int, int]:
    """
    Two connected sockets that keep messages whole, without a name, closed on exec.

    Raises:
        OSError: No descriptor is left.
    """

def pipe(duplex: bool, first_nonblocking: bool, second_nonblocking: bool) -> tuple[int, int]:
    """
    Two descriptors that are connected, closed on exec: those of a socket pair, or the one to read from and the one to write to.

    Raises:
        OSError: No descriptor is left.
    """

def pool_figures(engine: Engine) -> "dict[str, Any]":
    """
    Tell what a pool has done, and what it is doing.

    Returns:
        `tasks`: counts of those that are `pending` (and of these, `queued`: given to no worker yet), have `finished`, were
        `lost` with a worker, `overdue`, `terminated`, `withdrawn`, or never run by a `broken` pool, and how often one was
        `recalled` from one worker and given to another; `exits`: how many workers have ended; `workers`: for each its
        `pid`, `name`, `state`, tasks `finished`, tasks `handed` to it, seconds that the running one has been `busy` (None:
        idle), and resident memory `rss` in KiB.
    """

def read(fd: SupportsIndex, buffer: Any, size: SupportsIndex = 0, /) -> int:
    """
    Read from a descriptor into a buffer what there is, at most as much as is asked for.

    In blocking mode it waits until there is something, as `os.read` does: only a signal that this thread gets has handlers run
    meanwhile.

    Args:
        fd: The number of the descriptor.
        buffer: Anything that can be written to. It may be longer.
        size: How many bytes at most; 0 for as many as the buffer has room for.

    Returns:
        How many were read; 0 at the end.

    Raises:
        BlockingIOError: There is nothing now, and the descriptor is in non-blocking mode.
        OSError: It cannot be read; or the buffer is empty.
        ValueError: The size is negative, or the buffer has no room for so much.
    """

def set_pdeathsig(signal: SupportsIndex) -> None:
    """
    Ask the kernel for a signal when the thread that started this process ends; 0 asks for none.

    Raises:
        OSError: No such signal.
    """

def shared_file(size: SupportsIndex) -> int:
    """
    Shared memory with a descriptor of its own, of zeros.

    Args:
        size: How many bytes.

    Returns:
        Its descriptor, which belongs to the caller.

    Raises:
        OSError: No memory or descriptor is left.
    """

def shared_trim() -> None:
    """
    Give memory back to the system that is kept for the next blocks, where nothing near it is in use.
    """

def shared_usage() -> dict[str, int]:
    """
    What this process has allocated in shared memory that lives for long: locks, Values, Arrays, buffers.

    Returns:
        `segments`: how many pieces it is in; `blocks`: how many are in use; `warm`: bytes that are free and kept for the next
        ones; `retired`: bytes that children may still use, and that are freed with the rest of their segment.
    """

def spawn(path: SupportsGetItem[int, SupportsIndex], args: SupportsGetItem[int, SupportsGetItem[int, SupportsIndex]], env: SupportsGetItem[int, SupportsGetItem[int, SupportsIndex]], keep: SupportsGetItem[int, SupportsIndex], for_children: bool = False, pidfd: bool = True) -> Child:
    """
    Start a program that inherits descriptors 0, 1, 2 and exactly those given, under the same numbers.

    Args:
        path: The program.
        args: Its arguments, the name it is called by first.
        env: Its environment, as NAME=value.
        keep: The descriptors.
        for_children: Whether the program is one of ours that starts children: SIGINT is blocked, so that Ctrl-C has to wait until
            it is ready for it, and otherwise the signal mask is that with which this module was imported, whatever the calling
            thread blocks. False for the calling thread's mask.
        pidfd: False to do without a process descriptor, as on kernels that have none.

    Returns:
        The child, which the caller has to keep.

    Raises:
        OSError: The program cannot be started, or no descriptor is left; then nothing was started.
        ValueError: There is a null byte in one of the strings.
    """

def usable_cpu_count(override: SupportsIndex | None = None) -> int:
    """
    How many processors this process may use: affinity and control group quotas, rounded up, at least 1.

    Args:
        override: What the user ordered instead.
    """

def wait(object_list: Any, timeout: SupportsFloat | SupportsIndex | None = None) -> "list[Any]":
    """
    Wait until something can be read from at least one of several objects.

    Args:
        object_list: The objects: connections, sockets, queues, sentinels, descriptors, and whatever has a fileno().
        timeout: Seconds to wait; 0 and less look and return, None waits for ever.

    Returns:
        Those that are ready, each once, in their order. The end of a stream counts.

    Raises:
        OSError: One of them is closed.
        TypeError: One of them has no descriptor.
        ValueError: One of the descriptors is not open; or the timeout is nan.
    """
