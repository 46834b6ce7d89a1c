"""What importing and using the package loads."""

from __future__ import annotations

#: The standard library's process objects, exceptions, finalizers and fork hooks are shared with it. Its
#: package loads `context`, which loads `reduction`.
SHARED = {
    "multiprocessing",
    "multiprocessing.context",
    "multiprocessing.process",
    "multiprocessing.reduction",
    "multiprocessing.util",
}


def _loaded(program, source, prefix):
    done = program(
        f"import billiard, sys\n{source}\n"
        f"print(*sorted(name for name in sys.modules if name.split('.')[0] == {prefix!r}))"
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_importing_the_package_loads_little(program):
    assert _loaded(program, "", "billiard") == {
        "billiard",
        "billiard._factories",
        "billiard.context",
        "billiard.exceptions",
        "billiard.process",
    }
    assert _loaded(program, "", "multiprocessing") <= SHARED - {"multiprocessing.util"}


USE = """
from billiard import common, compat, context, einfo, exceptions, popen_fork, process, reduction, util
child = billiard.Process(target=int, daemon=True)
child.start()
child.join()
billiard.log_to_stderr()
billiard.usable_cpu_count()
reduction.ForkingPickler.dumps(child.name.upper)
util.get_temp_dir()
compat.mem_rss()
"""


def test_nothing_else_of_the_standard_package_is_loaded_in_use(program):
    assert _loaded(program, USE, "multiprocessing") <= SHARED


def test_every_module_keeps_what_it_promises(program):
    done = program(
        """
        import importlib, pkgutil, billiard
        for found in pkgutil.iter_modules(billiard.__path__, "billiard."):
            module = importlib.import_module(found.name)
            for name in getattr(module, "__all__", ()):
                getattr(module, name)
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
