"""Contexts, start methods, and the package's front."""

from __future__ import annotations

import multiprocessing
import os
import sys

import pytest

import billiard
from billiard import context, process


@pytest.fixture
def fresh(monkeypatch):
    """The default context as it is after import."""
    monkeypatch.setattr(context._default_context, "_actual_context", None)
    return context._default_context


def test_every_public_name_exists():
    for name in billiard.__all__:
        assert hasattr(billiard, name), name
    assert set(context.DefaultContext.__all__) <= {*billiard.__all__}


def test_the_functions_are_methods_of_one_context():
    for name in ("Pool", "cpu_count", "get_context", "get_logger", "set_start_method"):
        assert getattr(billiard, name).__self__ is context._default_context
    assert billiard.current_process is process.current_process
    assert billiard.active_children is process.active_children


def test_shared_exceptions_are_the_standard_librarys():
    for name in ("ProcessError", "BufferTooShort", "TimeoutError", "AuthenticationError"):
        assert getattr(billiard, name) is getattr(multiprocessing, name)
        assert getattr(context.BaseContext, name) is getattr(multiprocessing, name)
    assert billiard.TimeoutError is not TimeoutError


def test_the_version_is_a_tuple_and_a_text():
    assert billiard.VERSION[:3] == (4, 4, 0)
    assert len(billiard.VERSION) == 4
    assert billiard.__version__.startswith("4.4.0")


def test_using_the_context_settles_it(fresh):
    assert fresh.get_start_method(allow_none=True) is None
    assert fresh.get_context()._name == "fork"
    assert fresh.get_start_method(allow_none=True) == "fork"
    with pytest.raises(RuntimeError, match="context has already been set"):
        fresh.set_start_method("fork")
    fresh.set_start_method("fork", force=True)
    fresh.set_start_method(None, force=True)
    assert fresh.get_start_method(allow_none=True) is None
    fresh.set_start_method("fork")
    assert fresh.get_start_method() == "fork"


def test_a_concrete_context_keeps_its_method():
    fork = billiard.get_context("fork")
    assert fork.get_context() is fork
    assert fork.get_start_method() == "fork"
    assert fork.get_all_start_methods() == billiard.get_all_start_methods()
    for force in (False, True):
        with pytest.raises(ValueError, match="concrete context"):
            fork.set_start_method("fork", force=force)


@pytest.mark.parametrize("method", ["x", "", "FORK", 3, []])
def test_an_unknown_start_method_is_refused(fresh, method):
    for refuse in (fresh.get_context, fresh.set_start_method, billiard.get_context("fork").get_context):
        with pytest.raises(ValueError, match="cannot find context for"):
            refuse(method)
    assert fresh.get_start_method(allow_none=True) is None


def test_what_is_listed_works_and_what_is_not_says_so(fresh):
    listed = fresh.get_all_start_methods()
    assert listed[0] == fresh.get_start_method()
    for method in ("fork", "spawn", "forkserver"):
        if method in listed:
            assert fresh.get_context(method)._name == method
        else:
            with pytest.raises(ValueError, match=f"'{method}' is not available here; available: 'fork'"):
                fresh.get_context(method)


def test_forking_can_be_allowed_and_its_ban_is_not_silent(fresh):
    assert fresh.forking_is_enabled()
    fresh.forking_enable(True)
    if "spawn" in fresh.get_all_start_methods():
        fresh.forking_enable(False)
        assert not fresh.forking_is_enabled()
    else:
        with pytest.warns(RuntimeWarning, match="spawn"):
            fresh.forking_enable(False)
        assert fresh.forking_is_enabled()


def test_processors_are_counted(monkeypatch):
    assert billiard.cpu_count() == os.cpu_count()
    monkeypatch.delenv("BILLIARD_CPU_COUNT", raising=False)
    assert 1 <= billiard.usable_cpu_count() <= len(os.sched_getaffinity(0))
    monkeypatch.setenv("BILLIARD_CPU_COUNT", "7")
    assert billiard.usable_cpu_count() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    with pytest.raises(NotImplementedError):
        billiard.cpu_count()


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", " 2", "٣", "9" * 30])
def test_a_bad_order_of_processors_is_refused(monkeypatch, value):
    monkeypatch.setenv("BILLIARD_CPU_COUNT", value)
    with pytest.raises(ValueError, match="BILLIARD_CPU_COUNT must be a positive whole number"):
        billiard.usable_cpu_count()


def test_affinity_limits_the_usable_processors(program):
    done = program(
        """
        import billiard, os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        print(billiard.usable_cpu_count())
        """,
        BILLIARD_CPU_COUNT="",
    )
    assert done.stdout == "1\n"


def test_spawning_is_asserted_per_thread():
    class Lock:
        pass

    with pytest.raises(
        RuntimeError, match="Lock objects should only be shared between processes through inherit"
    ):
        context.assert_spawning(Lock())
    context.set_spawning_popen(object())
    try:
        context.assert_spawning(Lock())
    finally:
        context.set_spawning_popen(None)


def test_small_factories():
    assert billiard.freeze_support() is None
    assert billiard.ensure_multiprocessing() is None
    assert billiard.get_context("fork").Process is context.ForkProcess
    assert context.Process._start_method is None
    assert sys.modules["__mp_main__"] is sys.modules["__main__"]
