"""Shared memory with a name."""

from __future__ import annotations

import os
import pickle
import secrets
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import sharedwork

from billiard import _billiard, shared_memory
from billiard.shared_memory import ShareableList, SharedMemory

FOLDER = Path("/dev/shm")


def is_there(name: str) -> bool:
    return (FOLDER / name).exists()


def test_it_is_made_opened_and_removed():
    made = SharedMemory(create=True, size=100)
    assert (made.name[:4], made.size, bytes(made.buf)) == ("psm_", 100, bytes(100))
    other = SharedMemory(made.name)
    other.buf[:4] = b"abcd"
    assert bytes(made.buf[:4]) == b"abcd"
    assert repr(made) == f"SharedMemory({made.name!r}, size=100)"
    other.close()
    assert other.buf is None
    made.unlink()
    assert not is_there(made.name)
    with pytest.raises(FileNotFoundError):
        made.unlink()
    with pytest.raises(FileNotFoundError):
        SharedMemory(made.name)
    made.buf[:4] = b"efgh"
    made.close()
    made.close()


def test_a_name_is_taken_once():
    name = f"billiard-{secrets.token_hex(4)}"
    made = SharedMemory(name, create=True, size=10)
    assert made.name == name
    with pytest.raises(FileExistsError):
        SharedMemory(name, create=True, size=10)
    made.unlink()
    made.close()


@pytest.mark.parametrize(
    "options",
    [{}, {"create": True}, {"create": True, "size": -1}, {"name": "a/b"}, {"name": ".."}, {"name": ""}],
)
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match=r"shared memory|name"):
        SharedMemory(**options)


def test_views_keep_it_open():
    made = SharedMemory(create=True, size=10)
    view = made.buf[2:5]
    with pytest.raises(BufferError):
        made.close()
    view[:] = b"xyz"
    made.unlink()
    del made
    assert bytes(view) == b"xyz"
    view.release()


def test_a_child_uses_it_and_may_make_it(ctx):
    made, items = SharedMemory(create=True, size=10), ShareableList([1, "text", None])
    child = ctx.Process(target=sharedwork.set_named, args=(made, items))
    child.start()
    child.join()
    child.close()
    assert (bytes(made.buf[:5]), list(items)) == (b"child", [2, "other", None])
    queue = ctx.SimpleQueue()
    for target in (sharedwork.make_named, sharedwork.make_named_and_die):
        child = ctx.Process(target=target, args=(queue,))
        child.start()
        name = queue.get()
        child.join()
        child.close()
        # The one that has made it is gone, but not its parent.
        other = SharedMemory(name)
        assert bytes(other.buf[:3]) == b"abc"
        other.unlink()
        other.close()
    queue.close()
    for it in (made, items.shm):
        it.unlink()
        it.close()


def test_a_child_that_is_killed_takes_nothing_away(ctx):
    made, go = SharedMemory(create=True, size=10), ctx.Event()
    child = ctx.Process(target=sharedwork.open_named_and_die, args=(made.name, go))
    child.start()
    assert go.wait(30)
    child.join()
    child.close()
    _billiard.named_sweep()
    assert (is_there(made.name), made.buf[0]) == (True, 1)
    made.unlink()
    made.close()


MAKES = """
import os, signal, sys
from billiard.shared_memory import SharedMemory
memories = [SharedMemory(create=True, size=1000) for _ in range(3)]
print(*[memory.name for memory in memories], flush=True)
sys.stdin.readline()
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def made(request):
    """The names of what a program has made, and that program, which ends when it reads a line."""
    command = [sys.executable, "-c", MAKES, request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        yield program.stdout.readline().split(), program
        program.kill()


@pytest.mark.parametrize("made", ["killed"], indirect=True)
def test_what_the_killed_have_left_is_swept_away_unless_somebody_uses_it(made):
    names, program = made
    _billiard.named_sweep()
    assert all(map(is_there, names))
    used = SharedMemory(names[0])
    program.communicate("\n", timeout=30)
    assert program.returncode == -signal.SIGKILL
    _billiard.named_sweep()
    assert [is_there(name) for name in names] == [True, False, False]
    used.close()
    _billiard.named_sweep()
    assert not is_there(names[0])


@pytest.mark.parametrize("made", ["ends"], indirect=True)
def test_who_ends_in_peace_leaves_only_what_others_use(made):
    names, program = made
    used = SharedMemory(names[0])
    program.communicate("\n", timeout=30)
    assert [is_there(name) for name in names] == [True, False, False]
    used.close()
    _billiard.named_sweep()
    assert not is_there(names[0])


def test_a_forked_copy_counts_as_a_user_and_its_end_as_nothing():
    made = SharedMemory(create=True, size=10)
    if not (pid := os.fork()):
        shared_memory._leave()
        os._exit(0)
    os.waitpid(pid, 0)
    _billiard.named_sweep(leaving=True)
    assert is_there(made.name)
    made.unlink()
    made.close()


def test_what_is_not_ours_is_left_alone():
    name = f"foreign-{secrets.token_hex(4)}"
    path = FOLDER / name
    path.write_bytes(bytes(10))
    try:
        _billiard.named_sweep(leaving=True)
        assert path.exists()
        untracked = SharedMemory(f"{name}-untracked", create=True, size=10, track=False)
        untracked.close()
        _billiard.named_sweep(leaving=True)
        assert is_there(untracked.name)
        untracked.unlink()
    finally:
        path.unlink()


THEIRS = """
import sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import ShareableList, SharedMemory
# It would remove what it has only opened.
resource_tracker.register = lambda *args: None
memory, items = SharedMemory(sys.argv[1]), ShareableList(name=sys.argv[2])
print(bytes(memory.buf[:4]), list(items), items.format)
items[0], items[1], items[4] = 5, "new", None
memory.buf[:4] = b"back"
memory.close()
items.shm.close()
"""


def test_the_standard_library_opens_what_was_made_here(program):
    memory, items = (
        SharedMemory(create=True, size=10),
        ShareableList([1, "text", b"b\x00c", 1.5, True, None, "ü" * 9]),
    )
    memory.buf[:4] = b"ours"
    shape = items.format
    answer = program(THEIRS, memory.name, items.shm.name)
    expected = [1, "text", b"b\x00c", 1.5, True, None, "ü" * 9]
    assert answer.stderr == ""
    assert answer.stdout == f"{b'ours'} {expected} {shape}\n"
    assert (bytes(memory.buf[:4]), list(items)) == (b"back", [5, "new", b"b\x00c", 1.5, None, None, "ü" * 9])
    for it in (memory, items.shm):
        it.unlink()
        it.close()


def test_what_the_standard_library_has_made_opens_here_and_stays(program):
    source = """
    import sys
    from multiprocessing import resource_tracker
    from multiprocessing.shared_memory import ShareableList
    resource_tracker.register = lambda *args: None
    items = ShareableList(["a", 2, None, b"raw"], name=sys.argv[1])
    items.shm.close()
    """
    name = f"theirs-{secrets.token_hex(4)}"
    assert program(source, name).stderr == ""
    items = ShareableList(name=name)
    assert list(items) == ["a", 2, None, b"raw"]
    items.shm.close()
    _billiard.named_sweep(leaving=True)
    assert is_there(name)
    _billiard.named_remove(name)


def test_a_list_keeps_its_length_and_its_places():
    items = ShareableList(["four", 1, 2.5, None, False, b"bytes", ""])
    try:
        assert (len(items), items.count(1), items.index(2.5), items[-1]) == (7, 1, 2, "")
        items[0], items[1], items[6] = "1234567", None, "7 bytes"
        assert list(items) == ["1234567", None, 2.5, None, False, b"bytes", "7 bytes"]
        copy = pickle.loads(pickle.dumps(items))
        copy[2] = 7
        assert (items[2], repr(copy)) == (7, repr(items))
        copy.shm.close()
        for position, value, error in [(7, 1, IndexError), (-8, 1, IndexError), (0, "too long", ValueError),
                                       (0, [], ValueError), (1, 2**63, Exception)]:  # fmt: skip
            with pytest.raises(error):
                items[position] = value
        with pytest.raises(ValueError, match="not in the list"):
            items.index("none")
        assert items[0] == "1234567"
    finally:
        items.shm.unlink()
        items.shm.close()
    with pytest.raises(ValueError, match="closed"):
        items[0]
    with pytest.raises(ValueError, match="an item is"):
        ShareableList([object()])
