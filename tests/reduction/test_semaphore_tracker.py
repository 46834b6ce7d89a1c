"""The names of a tracker that has nothing to track."""

from __future__ import annotations

import os

import pytest

from billiard import semaphore_tracker


@pytest.mark.parametrize("use", [semaphore_tracker.register, semaphore_tracker.unregister])
def test_names_are_checked(use):
    use("/" + 511 * "x")
    for name in ("/" + 512 * "x", "/\N{LATIN SMALL LETTER E WITH ACUTE}"):
        with pytest.raises(ValueError, match="name"):
            use(name)


@pytest.mark.usefixtures("leak_census")
def test_no_process_is_started_and_nothing_stays_open_for_a_name():
    semaphore_tracker.register("/name")
    semaphore_tracker.unregister("/name")


def test_commands_can_be_written_to_the_descriptor(program):
    """In a program of its own, which ends with it."""
    done = program(
        """
        import os
        from billiard import semaphore_tracker
        tracker = semaphore_tracker._semaphore_tracker
        assert tracker._fd is None
        semaphore_tracker.ensure_running()
        fd = semaphore_tracker.getfd()
        assert fd == tracker._fd == semaphore_tracker.getfd()
        assert not os.get_inheritable(fd)
        assert os.write(fd, b"REGISTER:/name\\n") == 15
        print(os.path.samestat(os.fstat(fd), os.stat(os.devnull)))
        """
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_descriptor_that_a_child_was_given_is_answered(monkeypatch):
    monkeypatch.setattr(semaphore_tracker._semaphore_tracker, "_fd", 77)
    semaphore_tracker.ensure_running()
    assert semaphore_tracker.getfd() == 77


def test_a_child_forked_while_somebody_asked_can_ask(program):
    done = program(
        """
        import billiard
        from billiard import semaphore_tracker
        child = billiard.Process(target=semaphore_tracker.getfd, daemon=True)
        with semaphore_tracker._semaphore_tracker._lock:
            child.start()
        child.join(20)
        print(child.exitcode)
        """
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.usefixtures("leak_census")
def test_the_main_function_reads_to_the_end():
    reader, writer = os.pipe()
    with open(writer, "wb") as file:
        file.write(b"REGISTER:/name\nwhatever else\n" * 200)
    semaphore_tracker.main(reader)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)
