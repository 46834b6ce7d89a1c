"""Exceptions that travel."""

from __future__ import annotations

import inspect
import io
import logging
import pickle
import sys
import traceback
import types
import weakref

import pytest

from billiard import einfo
from billiard.einfo import ExceptionInfo, ExceptionWithTraceback, RemoteTraceback, Traceback


def _fail(depth=0):
    if depth:
        return _fail(depth - 1)
    __traceback_hide__ = True
    return {}["missing"] + 1


def _caught(depth=0):
    try:
        _fail(depth)
    except KeyError:
        return ExceptionInfo()


def _travelled(thing, times=1):
    for _ in range(times):
        thing = pickle.loads(pickle.dumps(thing))
    return thing


def _links(tb):
    while tb is not None:
        yield tb
        tb = tb.tb_next


def _printed(kind, exception, tb):
    return "".join(traceback.format_exception(kind, exception, tb))


def test_it_tells_what_happened():
    info = _caught()
    assert info.type is KeyError
    assert isinstance(info.exception, ExceptionWithTraceback)
    assert isinstance(info.exception.exc, KeyError)
    assert info.internal is False
    assert str(info) == info.traceback
    assert info.traceback.startswith("Traceback (most recent call last):")
    assert info.traceback.endswith("KeyError: 'missing'\n")
    assert repr(info) == "<ExceptionInfo: KeyError('missing')>"
    assert info.exc_info == (info.type, info.exception, info.tb)


def test_the_class_alone_is_empty():
    kind = ExceptionInfo
    assert (kind.type, kind.exception, kind.tb, kind.traceback, kind.internal) == (
        None,
        None,
        None,
        None,
        False,
    )


def test_causes_are_in_the_text():
    try:
        try:
            _fail()
        except KeyError as error:
            raise ValueError("outer") from error
    except ValueError:
        text = ExceptionInfo(internal=True).traceback
    assert "KeyError: 'missing'" in text
    assert "direct cause" in text


def test_no_exception_is_an_error_that_says_so():
    for nothing in (None, (None, None, None)):
        with pytest.raises(ValueError, match="no exception to describe"):
            ExceptionInfo(nothing)


def test_an_exception_that_was_never_raised_can_be_described():
    info = _travelled(ExceptionInfo((ValueError, ValueError("x"), None)))
    assert info.tb is None
    assert info.traceback == "ValueError: x\n"
    assert _printed(*info.exc_info).endswith("ValueError: x\n")


@pytest.mark.parametrize("times", [1, 2, 5])
def test_the_remote_traceback_survives_every_journey(times):
    info = _travelled(_caught(), times)
    assert type(info.exception) is KeyError
    assert info.exception.args == ("missing",)
    assert isinstance(info.exception.__cause__, RemoteTraceback)
    assert "in _fail" in str(info.exception.__cause__)
    assert str(info.exception.__cause__).count('"""') == 2
    assert repr(info) == "<ExceptionInfo: KeyError('missing')>"
    assert info.traceback == _caught().traceback


def test_attributes_can_be_assigned_and_travel():
    info = _caught()
    info.type, info.exception, info.extra = ValueError, ValueError("mine"), 3
    again = _travelled(info)
    assert (again.type, repr(again.exception), again.extra) == (ValueError, "ValueError('mine')", 3)


def test_the_wrapper_is_an_exception_whose_text_is_the_traceback():
    wrapper = _caught().exception
    assert isinstance(wrapper, Exception)
    assert wrapper.tb == str(wrapper)
    assert wrapper.tb.startswith('\n"""\nTraceback')
    assert wrapper.tb.endswith('missing\'\n"""')
    assert wrapper.args == ()


def test_the_wrapper_does_not_keep_frames_that_the_exception_has_let_go():
    class Local:
        pass

    def fail():
        local = Local()
        seen.append(weakref.ref(local))
        raise KeyError

    seen = []
    try:
        fail()
    except KeyError as error:
        wrapper = ExceptionWithTraceback(error, error.__traceback__)
    assert seen[0]() is not None
    wrapper.exc.__traceback__ = None
    assert seen[0]() is None


@pytest.mark.parametrize("times", [0, 1, 2])
def test_the_copy_prints_like_the_real_thing(times):
    try:
        _fail(3)
    except KeyError:
        kind, error, tb = sys.exc_info()
        wanted = _printed(kind, error, tb)
        copy = _travelled(Traceback(tb), times)
    assert _printed(kind, KeyError("missing"), copy) == wanted


@pytest.mark.parametrize("times", [0, 1, 2])
def test_logging_and_inspect_accept_the_copy(times):
    info = _travelled(_caught(2), times)
    stream = io.StringIO()
    logger = logging.Logger("mine")
    logger.addHandler(logging.StreamHandler(stream))
    logger.error("oops", exc_info=info.exc_info)
    assert "in _fail" in stream.getvalue()
    assert "KeyError: 'missing'" in stream.getvalue()
    stream.truncate(0)
    logger.error("oops", exc_info=info.exception)
    assert "in _fail" in stream.getvalue()

    assert inspect.istraceback(info.tb)
    assert inspect.isframe(info.tb.tb_frame)
    assert inspect.iscode(info.tb.tb_frame.f_code)
    assert isinstance(info.tb, types.TracebackType)
    assert type(info.tb) is Traceback
    assert traceback.extract_tb(info.tb)[-1].name == "_fail"
    assert list(traceback.walk_tb(info.tb))[-1][1] == _fail.__code__.co_firstlineno + 4


def test_the_fields_of_the_stand_ins():
    frame = _caught().tb.tb_next.tb_frame
    assert frame.f_globals == {"__file__": __file__, "__name__": __name__, "__loader__": None}
    assert frame.f_locals == {"__traceback_hide__": True}
    assert (frame.f_back, frame.f_trace, frame.f_builtins, frame.f_restricted) == (None, None, {}, False)
    assert (frame.f_exc_traceback, frame.f_exc_type, frame.f_exc_value) == (None, None, None)
    assert isinstance(frame.f_lineno, int)
    assert isinstance(frame.f_lasti, int)
    code = frame.f_code
    assert (code.co_filename, code.co_name, code.co_argcount) == (__file__, "_fail", 1)
    assert (code.co_cellvars, code.co_freevars, code.co_varnames, code.co_code, code.co_lnotab) == (
        (),
        (),
        (),
        b"",
        b"",
    )
    assert code.co_firstlineno == _fail.__code__.co_firstlineno
    if sys.version_info >= (3, 11):
        assert code.co_qualname == "_fail"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="code positions came with 3.11")
def test_code_positions():
    code = _fail.__code__
    assert list(einfo._Code(code).co_positions()) == list(code.co_positions())
    link = list(_links(_caught().tb))[-1]
    real = list(code.co_positions())[link.tb_lasti // 2]
    assert list(link.tb_frame.f_code.co_positions())[link.tb_lasti // 2] == real
    assert list(link.tb_frame.co_positions())[-1] == real
    assert list(einfo._Object().co_positions()) == [(None,) * 4]
    bag = einfo._Object(a=1, co_positions=((1, 2, 3, 4),))
    assert (bag.a, list(bag.co_positions())) == (1, [(1, 2, 3, 4)])
    assert list(_travelled(bag).co_positions()) == [(1, 2, 3, 4)]
    assert list(einfo._Truncated().co_positions()) == [(None,) * 4]


def test_a_frame_costs_little():
    shallow, deep = (len(pickle.dumps(_caught(depth).tb)) for depth in (1, 51))
    assert (deep - shallow) / 50 < 200


@pytest.mark.parametrize("times", [0, 1])
def test_a_long_chain_ends_in_a_note(times):
    tb = _travelled(_caught(einfo.DEFAULT_MAX_FRAMES * 3).tb, times)
    links = list(_links(tb))
    assert len(links) == einfo.DEFAULT_MAX_FRAMES + 3
    last = links[-1]
    assert type(last) is einfo._Truncated
    assert inspect.istraceback(last)
    assert (last.tb_lineno, last.tb_frame.f_code.co_filename) == (-1, "...")
    assert "[rest of traceback truncated]" in _printed(KeyError, KeyError("x"), tb)
    assert len(list(_links(Traceback(_raw_traceback(), max_frames=1)))) <= 4


def _raw_traceback():
    try:
        _fail(10)
    except KeyError as error:
        return error.__traceback__


def test_an_endless_recursion_can_be_pickled():
    def again():
        again()

    try:
        again()
    except RecursionError:
        info = _travelled(ExceptionInfo(), 2)
    assert info.type is RecursionError
    assert "maximum recursion depth" in str(info.exception)


def test_pickles_of_every_protocol_load():
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        info = pickle.loads(pickle.dumps(_caught(), protocol))
        assert "in _fail" in _printed(*info.exc_info)
