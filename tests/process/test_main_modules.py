"""The program's main module in children that are no copies: found and imported once, wherever it is."""

from __future__ import annotations

import sys

import pytest

from billiard import process, spawn

PROGRAM = """
import billiard, os, sys
def show():
    from billiard import spawn
    main = sys.modules["__main__"]
    print(main.__name__, main is sys.modules["__mp_main__"], main.__file__, os.environ.get("MP_MAIN_FILE"),
          [module.__name__ for module in spawn.old_main_modules], show.__module__, flush=True)
if __name__ == "__main__":
    if os.environ.get("LEAVE"):
        os.chdir(os.environ["LEAVE"])
    for method in ("fork", "spawn", "forkserver"):
        child = billiard.get_context(method).Process(target=show)
        child.start()
        child.join()
        print(child.exitcode, flush=True)
    print(os.environ.get("MP_MAIN_FILE"), sys.modules["__mp_main__"] is sys.modules["__main__"])
"""


@pytest.mark.parametrize(
    ("command", "leave"),
    [
        (("program.py",), ""),
        (("./folder/../program.py",), "/"),
        (("-m", "program"), "/"),
        (("-m", "folder.module"), ""),
    ],
    ids=str,
)
def test_the_main_module_is_found(script, original_script, tmp_path, command, leave):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "module.py").write_text(PROGRAM)
    ours, theirs = (run(PROGRAM, command=command, LEAVE=leave) for run in (script, original_script))
    assert (ours.stdout, ours.stderr) == (theirs.stdout, "")
    path = tmp_path / ("folder/module.py" if command[-1] == "folder.module" else "program.py")
    imported = f"__mp_main__ True {path} {path} ['__main__'] __mp_main__\n0\n"
    copied, *rest = ours.stdout.split("\n0\n", maxsplit=1)
    assert copied.startswith("__main__ True ")
    assert copied.endswith(" None [] __main__")
    assert rest == [2 * imported + "None True\n"]


@pytest.mark.parametrize(
    "command", [("-c", "{}"), ("-",), ("-m", "package"), ("package",)], ids=lambda it: it[0]
)
def test_without_one_what_can_be_imported_still_can(script, original_script, tmp_path, command):
    source = """
import billiard, os, sys
if __name__ == "__main__":
    import subject
    for method in ("fork", "spawn", "forkserver"):
        child = billiard.get_context(method).Process(target=subject.leave)
        child.start()
        child.join()
        print(child.exitcode)
"""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(source)
    (tmp_path / "subject.py").write_text(
        "import sys\ndef leave(): sys.exit('__mp_main__' == __name__ or 7)\n"
    )
    (tmp_path / "package" / "subject.py").write_text("import sys\ndef leave(): sys.exit(7)\n")
    command = tuple(part.format(source) for part in command)
    stdin = source if command == ("-",) else ""
    ours = script("", command=command, stdin=stdin)
    assert (ours.stdout, ours.stderr) == ("7\n7\n7\n", "")
    if not stdin:
        # The original looks for a file that is called like the standard input.
        theirs = original_script("", command=command)
        assert theirs.stdout == ours.stdout


def test_a_script_may_be_gone_by_then(script):
    done = script(
        """
        import billiard, os, sys
        if __name__ == "__main__":
            os.remove("program.py")
            for method in ("spawn", "forkserver"):
                child = billiard.get_context(method).Process(target=print, args=("child",))
                child.start()
                child.join()
        """
    )
    assert (done.stdout, done.stderr) == ("child\nchild\n", "")


UNGUARDED = """
import billiard, os, sys
with open("imports", "a") as file:
    print(os.getpid(), file=file)
child = billiard.get_context(sys.argv[1]).Process(target=print, args=("ran",))
child.start()
child.join()
print(child.exitcode)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_program_that_starts_processes_when_it_is_imported_is_told_once(script, tmp_path, method):
    done = script(UNGUARDED, method)
    assert done.stdout == "1\n"
    assert done.returncode == 0
    assert done.stderr.count("RuntimeError: ") == done.stderr.count("Traceback") == 1
    assert 'if __name__ == "__main__":' in done.stderr
    # The program itself, the child, and the server before it: nobody else.
    assert len((tmp_path / "imports").read_text().split()) == {"spawn": 2, "forkserver": 3}[method]


def test_a_main_module_that_cannot_be_imported_ends_the_child(script):
    done = script(
        """
        import billiard
        if __name__ == "__main__":
            for method in ("spawn", "forkserver"):
                child = billiard.get_context(method).Process(target=int, name=method)
                child.start()
                child.join()
                print(child.exitcode)
        else:
            raise ZeroDivisionError
        """
    )
    assert done.stdout == "1\n1\n"
    assert done.stderr.count("Process spawn:\nTraceback") == 1
    assert done.stderr.count("Process forkserver:\nTraceback") == 1
    assert done.stderr.count("ZeroDivisionError\n") == 2 * 2


def test_a_main_module_can_be_imported_by_hand(script, tmp_path):
    (tmp_path / "other.py").write_text("name = __name__\n")
    done = script(
        """
        import os, sys
        from billiard import spawn
        before = sys.modules["__main__"]
        spawn.import_main_path(os.path.abspath("other.py"))
        main = sys.modules["__main__"]
        print(main.name, main is sys.modules["__mp_main__"], spawn.old_main_modules == [before])
        # A second time it is there already.
        spawn.import_main_path(os.path.abspath("other.py"))
        print(main is sys.modules["__main__"], len(spawn.old_main_modules))
        # A shell is the main program of others.
        spawn.import_main_path("/no/such/ipython")
        print(main is sys.modules["__main__"])
        """
    )
    assert (done.stdout, done.stderr) == ("__mp_main__ True True\nTrue 1\nTrue\n", "")


@pytest.mark.parametrize(("file", "found"), [("there.py", True), ("gone.py", False), (None, False)])
@pytest.mark.parametrize("absolute", [True, False])
def test_where_a_main_module_is_looked_for(monkeypatch, tmp_path, file, found, absolute):
    (tmp_path / "there.py").touch()
    # Relative to where the program was started, not to where it is now.
    monkeypatch.setattr(process, "ORIGINAL_DIR", str(tmp_path))
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__spec__", None)
    monkeypatch.setattr(
        main, "__file__", file and (str(tmp_path / file) if absolute else file), raising=False
    )
    told = {"init_main_from_path": str(tmp_path / file)} if found else {}
    assert spawn.main_module() == told
