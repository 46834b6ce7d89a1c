"""What must not be done with process objects, and the errors that say so, under each start method."""

from __future__ import annotations

import kinwork
import processwork
import pytest

import billiard
from billiard import process


def test_before_the_start(ctx):
    child = ctx.Process(target=int)
    assert (child.pid, child.ident, child.exitcode) == (None, None, None)
    assert not child.is_alive()
    assert not child._is_alive()
    with pytest.raises(AssertionError, match="can only join a started process"):
        child.join()
    for end in (
        child.terminate,
        child.kill,
        child.interrupt,
        child.terminate_controlled,
        lambda: child.sentinel,
    ):
        with pytest.raises(ValueError, match="process not started"):
            end()


def test_arguments(ctx):
    with pytest.raises(AssertionError, match="group argument must be None"):
        ctx.Process(group=1)
    with pytest.raises(TypeError):
        ctx.Process(args=3)
    with pytest.raises((TypeError, ValueError)):
        ctx.Process(kwargs=3)


def test_what_can_be_set_and_when(staying, ctx):
    child = ctx.Process()
    child.name, child.daemon = "other", True
    assert (child.name, child.daemon, child._config["daemon"]) == ("other", True, True)
    for wrong in (3, None, b"x"):
        with pytest.raises(AssertionError, match="name must be a string"):
            child.name = wrong
    running = staying()
    running.name = "new"
    assert "new" in repr(running)
    with pytest.raises(AssertionError, match="process has already started"):
        running.daemon = False


def test_a_process_is_started_once(staying, start):
    for child in (staying(), start(processwork.leave, 0)):
        with pytest.raises(AssertionError, match="cannot start a process twice"):
            child.start()
        child.kill()
        child.join()
        with pytest.raises(AssertionError, match="cannot start a process twice"):
            child.start()


def test_the_object_is_its_creators(ctx, staying):
    # Only a copy of this process can have the objects at all.
    running, fresh = staying(), ctx.Process(target=int)
    copy = billiard.get_context("fork").Process(target=kinwork.misuse, args=(running, fresh))
    copy.start()
    copy.join()
    assert copy.exitcode == 0
    copy.close()
    assert running.is_alive()


def test_a_child_is_not_its_own_parent(ask):
    assert ask(kinwork.own_misuse) == [
        "AssertionError",
        "AssertionError",
        "ValueError",
        "ValueError",
        "TypeError",
    ]


def test_the_base_class_cannot_be_started():
    child = process.BaseProcess(target=int)
    with pytest.raises(NotImplementedError, match="no start method"):
        child.start()
    assert (child._popen, process.BaseProcess._start_method) == (None, None)
    assert child not in process._children


def test_the_main_process_cannot_be_started_nor_joined():
    main = billiard.current_process()
    with pytest.raises(AssertionError, match="created by current process"):
        main.start()
    with pytest.raises(AssertionError, match="child process"):
        main.join()
    with pytest.raises(ValueError, match="not started"):
        main.terminate()
