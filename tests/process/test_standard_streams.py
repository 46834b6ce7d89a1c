"""Standard input, output and error of a process, under each start method."""

from __future__ import annotations

import pytest

READ = """
import billiard, os, sys
def child():
    print(repr(sys.stdin.read()), flush=True)
if __name__ == "__main__":
    first = sys.stdin.readline() if "begun" in sys.argv else None
    process = billiard.get_context(sys.argv[1]).Process(target=child)
    process.start()
    process.join()
    print(first, repr(sys.stdin.read()))
"""


@pytest.mark.parametrize(
    ("begun", "told"), [((), "''\nNone 'one\\ntwo\\n'\n"), (("begun",), "''\none\n 'two\\n'\n")]
)
def test_a_child_takes_nothing_of_its_parents_input(script, original_script, method, begun, told):
    ours, theirs = (run(READ, method, *begun, stdin="one\ntwo\n") for run in (script, original_script))
    assert (ours.stdout, ours.stderr) == (theirs.stdout, "") == (told, "")


WHOEVER = """
import billiard, os, sys
def empty():
    sys.exit(sys.stdin.read() != "")
def child():
    print(repr(sys.stdin.readline()), sys.stdin.closed, os.read(sys.stdin.fileno(), 100), flush=True)
    # A program may close it and open it again; a child of its own has to cope with that.
    sys.stdin.close()
    sys.stdin = open(0, closefd=False)
    process = billiard.get_context("fork").Process(target=empty)
    process.start()
    process.join()
    print(process.exitcode)
if __name__ == "__main__":
    process = billiard.get_context(sys.argv[1]).Process(target=child)
    process.start()
    process.join()
    print(sys.stdin.read())
"""


def test_input_is_empty_whoever_reads_it(script, method):
    done = script(WHOEVER, method, stdin="precious")
    assert (done.stdout, done.stderr) == ("'' False b''\n0\nprecious\n", "")


def test_main_modules_and_preloaded_ones_read_nothing_of_it_either(script, tmp_path):
    (tmp_path / "greedy.py").write_text("import sys; print('preloaded', repr(sys.stdin.read()))")
    done = script(
        """
        import billiard, sys
        if __name__ != "__main__":
            print(repr(sys.stdin.read()))
        else:
            billiard.set_forkserver_preload(["greedy"])
            for method in ("spawn", "forkserver"):
                process = billiard.get_context(method).Process(target=int)
                process.start()
                process.join()
                print(process.exitcode, flush=True)
            print(repr(sys.stdin.read()))
        """,
        stdin="precious",
    )
    assert done.stderr == ""
    assert done.stdout == "''\n0\npreloaded ''\n''\n0\n'precious'\n"


STRANGE = """
import billiard, io, os, sys
def child(told):
    with open(told, "a") as file:
        print(None if sys.stdin is None else repr(sys.stdin.read()), file=file)
    sys.exit(6)
class Strange:
    pass
class Failing(io.StringIO):
    def close(self):
        raise OSError
if __name__ == "__main__":
    how = sys.argv[2]
    for name in ("stdin", "stdout", "stderr"):
        if how == "missing":
            setattr(sys, name, None)
        elif how == "closed":
            getattr(sys, name).close()
        else:
            setattr(sys, name, {"strange": Strange, "failing": Failing, "text": io.StringIO}[how]())
    process = billiard.get_context(sys.argv[1]).Process(target=child, args=(os.path.abspath("told"),))
    process.start()
    process.join()
    os._exit(process.exitcode)
"""


@pytest.mark.parametrize("how", ["missing", "closed", "strange", "failing", "text"])
def test_standard_streams_may_be_anything(script, method, tmp_path, how):
    assert script(STRANGE, method, how, stdin="x").returncode == 6
    # Only a copy has what its parent has.
    told = "None\n" if (how, method) == ("missing", "fork") else "''\n"
    assert (tmp_path / "told").read_text() == told


CLOSED = """
import billiard, os, sys
for stream in (sys.stdout, sys.stderr):
    if stream is not None:
        print("much" * 10_000, file=stream, flush=True)
def child():
    sys.exit(6)
if __name__ == "__main__":
    process = billiard.get_context(sys.argv[1]).Process(target=child)
    process.start()
    process.join()
    os._exit(process.exitcode)
"""


@pytest.mark.parametrize("closed", ["<&-", ">&- 2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_standard_descriptors_may_be_closed(script, method, closed):
    # What is opened next gets the number of the one that is missing, and a child must not take it for that.
    shell = f"""exec "$0" "$@" {closed}"""
    closing = f"import os, sys; os.execv('/bin/sh', ['sh', '-c', {shell!r}, sys.executable, *sys.argv[1:]])"
    assert script(CLOSED, method, command=("-c", closing, "program.py")).returncode == 6


PENDING = """
import billiard, sys
def child():
    sys.stdout.write("child ")
    sys.stderr.write("problem ")
if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=False, write_through=False)
        stream.write("once ")
    process = billiard.get_context(sys.argv[1]).Process(target=child)
    process.start()
    process.join()
    sys.stdout.write("end")
"""


def test_what_is_buffered_is_written_once_and_in_order(script, original_script, method):
    ours, theirs = (run(PENDING, method) for run in (script, original_script))
    assert (ours.stdout, ours.stderr) == (theirs.stdout, theirs.stderr) == ("once child end", "once problem ")


def test_what_a_preloaded_module_prints_is_printed_once(script):
    done = script(
        """
        import billiard
        print(__name__)
        if __name__ == "__main__":
            for _ in range(3):
                process = billiard.get_context("forkserver").Process(target=int)
                process.start()
                process.join()
        """
    )
    assert (done.stdout, done.stderr) == ("__main__\n__mp_main__\n", "")
