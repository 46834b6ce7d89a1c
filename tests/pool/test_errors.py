"""What a task raises, and what cannot travel."""

import _thread
import builtins
import gc
import os
import pickle
import re
import sys
import threading
import traceback

import pytest
from poolwork import double, echo, fail, identity

from billiard.einfo import ExceptionInfo, RemoteTraceback
from billiard.pool import MaybeEncodingError

BOUND = 60


class Plain:
    pass


class RaisesOnDump:
    def __init__(self, error=RuntimeError):
        self.error = error

    def __reduce__(self):
        raise self.error("not to be sent")


class RaisesOnLoad:
    def __reduce__(self):
        return raise_it, (RuntimeError, "not to be read")


class ExitsOnLoad:
    def __reduce__(self):
        return raise_it, (SystemExit, 3)


class Recursive:
    def __reduce__(self):
        return Recursive, (Recursive(),)


def raise_it(kind, *args):
    raise kind(*args)


class TwoArguments(Exception):
    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code


class KeywordOnly(Exception):
    def __init__(self, *, why):
        super().__init__(why)


class Holding(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class WithAttributes(Exception):
    def __init__(self, text, extra=None):
        super().__init__(text)
        self.extra = extra


class Abrupt(BaseException):
    pass


class BadText(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__


def make_lock():
    return threading.Lock()


def make(kind):
    return kind()


def hidden_lock():
    return {"rows": [1, {"lock": threading.Lock()}]}


def raise_two_arguments():
    raise TwoArguments(5, "reasons")


def raise_keyword_only():
    raise KeywordOnly(why="because")


def raise_holding():
    raise Holding("with a lock")


def raise_local():
    class Local(Exception):
        pass

    raise Local("nobody else has it")


def raise_chained():
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer") from error


def raise_noted():
    error = WithAttributes("text", extra=[1, 2])
    if hasattr(error, "add_note"):
        error.add_note("a note")
    error.later = "set later"
    raise error


def raise_what_cannot_be_shown():
    raise SyntaxError("text", ("file", 1, 1, 5))


def raise_deep(depth=500):
    if depth:
        raise_deep(depth - 1)
    raise ValueError("deep")


def raise_system_exit(code):
    raise SystemExit(code)


def outcome(pool, function, *args):
    """The exception of a task; the pool still works after it."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        pool.apply_async(function, args).get(BOUND)
    assert pool.apply_async(double, (2,)).get(BOUND) == 4
    return caught.value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (lambda: 0, "argument 0"),
        (threading.Lock(), "argument 0"),
        ([1, [2, threading.Lock()]], r"argument 0\[1\]\[1\]"),
        ({"a": {"b": (_thread.allocate_lock(),)}}, r"argument 0\['a'\]\['b'\]\[0\]"),
        (RaisesOnDump(), "argument 0.*RuntimeError.*not to be sent"),
        (type("Local", (), {})(), "argument 0"),
    ],
    ids=["lambda", "lock", "in lists", "in dicts", "reduce", "local class"],
)
def test_an_argument_that_cannot_be_sent_is_named(pool, value, path):
    error = outcome(pool, identity, value)
    assert isinstance(error, pickle.PicklingError)
    assert re.search(path, str(error)), str(error)


def test_the_way_through_attributes_is_named(pool):
    holder = Plain()
    holder.parts = {"first": [0, threading.Lock()]}
    assert "argument 0.parts['first'][1]" in str(outcome(pool, identity, holder))
    with pytest.raises(pickle.PicklingError, match=r"argument 'c'\.parts"):
        pool.apply(echo, (), {"a": 1, "c": holder})


def test_a_function_that_cannot_be_sent_is_named(pool):
    def local():
        pass

    for function in (local, lambda: 0, threading.Lock().acquire):
        error = outcome(pool, function)
        assert isinstance(error, pickle.PicklingError)
        assert "the function" in str(error)


def test_an_item_that_cannot_be_sent_fails_its_map(pool):
    for items in ([0, 1, lambda: 0, 3], [threading.Lock()]):
        with pytest.raises(pickle.PicklingError, match=f"item {2 if len(items) > 1 else 0}"):
            pool.map(identity, items, chunksize=1)
    with pytest.raises(pickle.PicklingError, match=r"item 1\[0\]"):
        pool.starmap(identity, [(1,), (threading.Lock(),)], chunksize=2)
    assert pool.map(identity, [1, 2]) == [1, 2]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, Abrupt])
def test_a_reducer_may_raise_anything(pool, kind):
    assert isinstance(outcome(pool, identity, RaisesOnDump(kind)), kind)


def test_a_reducer_without_end_fails_its_job_only(pool):
    assert isinstance(outcome(pool, identity, Recursive()), (RecursionError, pickle.PicklingError))


def test_an_argument_that_cannot_be_read_fails_its_job_only(pool):
    error = outcome(pool, identity, RaisesOnLoad())
    assert "not to be read" in str(error)
    assert isinstance(outcome(pool, identity, ExitsOnLoad()), SystemExit)


@pytest.mark.parametrize("function", [make_lock, hidden_lock])
def test_a_result_that_cannot_be_sent_is_named(pool, function):
    error = outcome(pool, function)
    assert isinstance(error, MaybeEncodingError)
    assert "cannot pickle '_thread.lock' object" in error.exc
    assert "lock" in error.value
    path = {"make_lock": "result", "hidden_lock": "result['rows'][1]['lock']"}[function.__name__]
    assert f"at {path}" in str(error)
    assert str(error).startswith("Error sending result: ")


def test_results_that_misbehave_on_their_way(pool):
    assert "not to be sent" in str(outcome(pool, make, RaisesOnDump))
    error = outcome(pool, make, RaisesOnLoad)
    assert isinstance(error, MaybeEncodingError)
    assert "not to be read" in str(error)
    assert isinstance(outcome(pool, make, ExitsOnLoad), (MaybeEncodingError, SystemExit))
    for kind in ("map", "imap", "imap_unordered"):
        with pytest.raises(MaybeEncodingError):
            list(getattr(pool, kind)(make, [RaisesOnLoad]))


def test_an_encoding_error_keeps_its_text_through_pickling():
    error = MaybeEncodingError(ValueError("why"), {"a": 1})
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) == "Error sending result: {'a': 1}. Reason: ValueError('why')."
    assert repr(error) == f"<MaybeEncodingError: {error}>"


def test_an_exception_whose_class_takes_other_arguments_is_told(pool):
    error = outcome(pool, raise_two_arguments)
    assert "TwoArguments" in str(error)
    assert "5: reasons" in str(error)
    assert "raise_two_arguments" in str(error.__cause__)
    told = outcome(pool, raise_keyword_only)
    assert "KeywordOnly: because" in str(told)
    told = outcome(pool, raise_local)
    assert "Local" in str(told)
    assert "nobody else has it" in str(told)
    assert "raise_local" in str(told.__cause__)


def test_an_exception_that_holds_a_lock_is_told(pool):
    error = outcome(pool, raise_holding)
    assert isinstance(error, MaybeEncodingError)
    assert "Holding: with a lock" in str(error)
    assert "raise_holding" in str(error.__cause__)


def test_an_exception_without_a_text_is_told(pool):
    error = outcome(pool, raise_it, BadText)
    assert isinstance(error, (BadText, MaybeEncodingError))


@pytest.mark.parametrize("kind", [ValueError, KeyError, OSError, AssertionError, StopIteration, MemoryError])
def test_an_exception_arrives_as_itself(pool, kind):
    error = outcome(pool, raise_it, kind, "text")
    assert type(error) is kind
    assert error.args == ("text",)
    assert isinstance(error.__cause__, RemoteTraceback)


def test_the_class_is_the_one_that_except_names(pool):
    for kind in (pool.apply, lambda f, a: pool.map(f, [a[0]]), lambda f, a: list(pool.imap(f, [a[0]]))):
        with pytest.raises(ValueError, match="no"):
            kind(fail, ("no",))


def test_the_cause_is_the_remote_traceback(pool):
    error = outcome(pool, fail, "no")
    text = str(error.__cause__)
    assert "Traceback (most recent call last)" in text
    assert text.index("workloop") < text.index("in fail")
    assert "raise ValueError(message)" in text
    assert "in fail" in "".join(traceback.format_exception(error))


def test_the_remote_cause_is_told(pool):
    error = outcome(pool, raise_chained)
    text = str(error.__cause__)
    assert "KeyError: 'inner'" in text
    assert "direct cause" in text


def test_notes_and_attributes_survive(pool):
    error = outcome(pool, raise_noted)
    assert type(error) is WithAttributes
    assert (error.args, error.extra, error.later) == (("text",), [1, 2], "set later")
    if hasattr(error, "add_note"):
        assert error.__notes__ == ["a note"]
        assert "a note" in str(error.__cause__)


def test_a_group_survives(pool):
    group = getattr(builtins, "ExceptionGroup", None)
    if group is None:
        pytest.skip("exception groups came with Python 3.11")
    error = outcome(pool, raise_it, group, "two", [ValueError("a"), KeyError("b")])
    assert [type(e) for e in error.exceptions] == [ValueError, KeyError]


def test_what_cannot_be_shown_arrives_and_its_worker_lives_on(make_pool):
    pool = make_pool(1)
    worker = pool.apply(os.getpid)
    error = outcome(pool, raise_what_cannot_be_shown)
    assert (type(error), error.args) == (SyntaxError, ("text", ("file", 1, 1, 5)))
    text = str(error.__cause__)
    assert "in raise_what_cannot_be_shown" in text
    assert "SyntaxError: <cannot be shown: AttributeError in its formatting>" in text
    assert pool.apply(os.getpid) == worker


def test_a_deep_traceback_survives(pool):
    error = outcome(pool, raise_deep)
    assert error.args == ("deep",)
    assert isinstance(outcome(pool, raise_deep, 10_000), RecursionError)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, GeneratorExit, Abrupt])
def test_what_is_no_exception_arrives_too(make_pool, kind):
    pool = make_pool(1)
    worker = pool.apply(os.getpid)
    assert type(outcome(pool, raise_it, kind, "text")) is kind
    assert pool.apply(os.getpid) == worker


@pytest.mark.parametrize("code", [None, 0, 3, "words"])
def test_an_exit_in_a_task_is_its_result_and_no_more(make_pool, code):
    pool = make_pool(1)
    worker = pool.apply(os.getpid)
    for function in (sys.exit, raise_system_exit):
        error = outcome(pool, function, code)
        assert type(error) is SystemExit
        assert error.code == code
    assert pool.apply(os.getpid) == worker


def test_the_info_knows_type_exception_and_traceback(pool):
    result = pool.apply_async(fail, ("no",))
    result.wait()
    info = result._value
    assert isinstance(info, ExceptionInfo)
    assert (result.successful(), result._success) == (False, False)
    assert info.type is ValueError
    assert "in fail" in info.traceback
    assert info.tb.tb_frame.f_code.co_name == "workloop"
    assert info.tb.tb_next.tb_frame.f_code.co_name == "fail"
    assert str(info) == info.traceback


def test_getting_twice_raises_twice(pool):
    result = pool.apply_async(fail, ("no",))
    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            result.get()


def test_failing_tasks_leave_nothing_behind(pool, until):
    def objects():
        gc.collect()
        return len(gc.get_objects())

    for _ in range(200):
        pool.apply_async(fail, ("warm up",)).wait()
    before = objects()
    for _ in range(2000):
        with pytest.raises(ValueError, match="no"):
            pool.apply(fail, ("no",))
    # What the pool still holds of the last ones it lets go some at a time, in the background.
    until(lambda: objects() - before < 500)
