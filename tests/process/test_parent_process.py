"""The parent, as its child sees it, under each start method."""

from __future__ import annotations

import os

import kinwork
import processwork
import pytest

import billiard

#: How long what must happen may take on a machine that is busy, in seconds.
PATIENCE = 30.0


def test_a_child_knows_its_parent(ask):
    told = ask(kinwork.describe_parent)
    assert told["name"] == "MainProcess"
    assert told["pid"] == told["ident"] == os.getpid()
    assert told["alive"] is True
    assert told["repr"] == "<ParentProcess(MainProcess, unknown)>"
    assert told["both packages"] is True
    assert told["misuse"] == ["AssertionError", "ValueError", "ValueError"]


@pytest.mark.parametrize("timeout", [0, -1, 0.0009, 0.03])
def test_a_wait_for_the_parent_is_as_long_as_told(ask, timeout):
    waited, alive, shown = ask(kinwork.wait_for_parent, timeout)
    assert waited >= timeout
    assert (alive, shown) == (True, [])


def test_the_main_process_has_no_parent():
    assert billiard.parent_process() is None
    assert billiard.get_context("fork").parent_process is billiard.parent_process


def _ends_with_it(start, pipe, method, way):
    (reader, writer), (released, release) = pipe(), pipe()
    child = start(kinwork.start_a_witness, method, writer, processwork.Descriptor(released), way)
    # The witness runs, and waits by now or will in a moment: both must do.
    assert os.read(reader, 1) == b"r"
    os.write(release.fd, b"r")
    assert os.read(reader, 10) == b"gone"
    child.join()
    assert child.exitcode == 0


@pytest.mark.usefixtures("exits_are_told")
@pytest.mark.parametrize("way", ["sentinel", "closed", float("inf")])
def test_a_wait_for_the_parent_ends_with_it(start, pipe, method, way):
    _ends_with_it(start, pipe, method, way)


@pytest.mark.usefixtures("exits_are_told")
@pytest.mark.parametrize("method", ["fork"], indirect=True)
@pytest.mark.parametrize("timeout", [None, 1e300, PATIENCE])
def test_so_does_one_of_any_length(start, pipe, method, timeout):
    _ends_with_it(start, pipe, method, timeout)


def test_a_wait_for_the_parent_is_one_although_all_descriptors_are_closed(start, pipe):
    reader, writer = pipe()
    start(kinwork.close_all_and_wait, writer, 0.12)
    assert os.read(reader, 10) == b"alive"
