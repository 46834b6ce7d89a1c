"""Counts what is in the standard library of this interpreter, in a pool that four of the tasks try to ruin.

Every ``.py`` file is parsed by a worker. Among these tasks one loops for ever, one sleeps past its soft
limit, one crashes the interpreter and one ends its process; the census must come out as if they had never
been there. Then the pool is timed against the standard library's and, where it is installed, the original's.

    python examples/census.py [--workers N] [--limit FILES] [--no-rates]

The original is looked for in ``.oracle/`` of this checkout, or at ``BILLIARD_ORIGINAL=/path/to/its/python``.
"""

from __future__ import annotations

import argparse
import ast
import ctypes
import importlib
import logging
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

LIBRARY = Path(sysconfig.get_path("stdlib"))
RATE_JOBS = 20_000
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Count(NamedTuple):
    """What one file holds; adding two gives what both hold together."""

    files: int = 0
    unparsable: int = 0
    lines: int = 0
    classes: int = 0
    functions: int = 0
    longest: tuple[int, str] = (0, "")

    def __add__(self, other: Count) -> Count:  # type: ignore[override]
        sums = [mine + theirs for mine, theirs in zip(self[:-1], other[:-1], strict=True)]
        return Count(*sums, max(self.longest, other.longest))  # type: ignore[arg-type]


def count(path: str) -> Count:
    """Parse one file and count its definitions."""
    source = (LIBRARY / path).read_bytes()
    lines = source.count(b"\n")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        # The library's own tests contain files that are wrong on purpose.
        return Count(files=1, unparsable=1, lines=lines)
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    lengths = [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{path}:{node.name}") for node in functions
    ]
    classes = sum(isinstance(node, ast.ClassDef) for node in ast.walk(tree))
    return Count(1, 0, lines, classes, len(functions), max(lengths, default=(0, "")))


def loop_for_ever() -> None:
    while True:
        pass


def sleep_and_clean_up(directory: str) -> str:
    """Make a file, sleep too long, and still take the file away."""
    from billiard.exceptions import SoftTimeLimitExceeded  # noqa: PLC0415 - the other contenders have no such name

    scratch = Path(directory, "scratch")
    scratch.touch()
    try:
        time.sleep(3600)
    except SoftTimeLimitExceeded:
        return "was warned and cleaned up"
    finally:
        scratch.unlink()
    return "was never warned"


def crash() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(7)


class Accident(NamedTuple):
    """A task that misbehaves: what it is given, and what its caller must get."""

    title: str
    function: Callable[..., object]
    args: tuple[object, ...]
    limits: dict[str, float]
    expected: str


def accidents(scratch: str) -> list[Accident]:
    return [
        Accident("loops for ever", loop_for_ever, (), {"timeout": 1.0}, "TimeLimitExceeded"),
        Accident(
            "sleeps past its soft limit",
            sleep_and_clean_up,
            (scratch,),
            {"soft_timeout": 0.5, "timeout": 5.0},
            "was warned and cleaned up",
        ),
        Accident("segfaults", crash, (), {}, "WorkerLostError"),
        Accident("calls os._exit(7)", leave, (), {}, "WorkerLostError"),
    ]


class Progress:
    """One line that is drawn over itself on a terminal, and a line for each quarter elsewhere."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._drawn = -1
        self._live = sys.stdout.isatty()

    def show(self, done: int) -> None:
        step = done if self._live else 4 * done // self._total
        if step == self._drawn:
            return
        self._drawn = step
        filled = 30 * done // self._total
        line = f"[{'#' * filled}{'.' * (30 - filled)}] {done}/{self._total} tasks"
        print(f"\r{line}" if self._live else line, end="" if self._live else "\n", flush=True)
        if self._live and done == self._total:
            print()


def find_files(limit: int | None) -> list[str]:
    """List the library's own files; what was installed into it is not the library."""
    found = (path.relative_to(LIBRARY) for path in sorted(LIBRARY.rglob("*.py")))
    return [str(path) for path in found if path.parts[0] not in ("site-packages", "dist-packages")][:limit]


def describe(result: Any) -> tuple[str, str]:
    """Say what the caller of a task gets: the value, or the exception's class; and the same with its text."""
    try:
        value = str(result.get())
    except Exception as error:
        lines = str(error).splitlines() or [""]
        return type(error).__name__, f"{type(error).__name__}: {lines[0]}"
    return value, value


def wait_for_all(results: Iterable[Any]) -> None:
    waiting = list(results)
    progress = Progress(len(waiting))
    total = len(waiting)
    while waiting:
        # The job submitted last is among the last to end; the progress line is due ten times a second.
        waiting[-1].wait(0.1)
        waiting = [result for result in waiting if not result.ready()]
        progress.show(total - len(waiting))


def print_table(paths: list[str], counts: list[Count]) -> None:
    by_package: defaultdict[str, Count] = defaultdict(Count)
    for path, one in zip(paths, counts, strict=True):
        parts = Path(path).parts
        by_package[parts[0] if len(parts) > 1 else "(modules)"] += one
    top = sorted(by_package.items(), key=lambda item: item[1].lines, reverse=True)[:10]
    print(f"\n{'package':<14}{'files':>7}{'lines':>9}{'classes':>9}{'functions':>11}   longest function")
    for name, one in [*top, ("all", sum(counts, Count()))]:
        length, where = one.longest
        longest = f"{where} ({length:,} lines)" if length else "none"
        numbers = f"{one.files:>7,}{one.lines:>9,}{one.classes:>9,}{one.functions:>11,}"
        print(f"{name:<14}{numbers}   {longest}")
    print(f"not parsable, on purpose: {sum(one.unparsable for one in counts)} files")


def run_census(workers: int, limit: int | None) -> bool:
    """Count in the pool and again without it; tell whether everything came out as it must."""
    import billiard  # noqa: PLC0415 - `--rate` must not load it beside another contender

    # The pool's logger tells of each worker that ends badly; the summary at the end does that here.
    logging.getLogger("multiprocessing").setLevel(logging.CRITICAL)
    paths = find_files(limit)
    print(f"{len(paths):,} files of Python {sys.version.split()[0]} and 4 accidents, {workers} workers")
    with tempfile.TemporaryDirectory() as scratch, billiard.Pool(workers) as pool:
        start = time.perf_counter()
        planned = accidents(scratch)
        spacing = max(1, len(paths) // (len(planned) + 1))
        files, broken = [], []
        for number, path in enumerate(paths):
            files.append(pool.apply_async(count, (path,)))
            if number % spacing == spacing - 1 and len(broken) < len(planned):
                accident = planned[len(broken)]
                broken.append(pool.apply_async(accident.function, accident.args, **accident.limits))
        wait_for_all([*files, *broken])
        pooled_seconds = time.perf_counter() - start
        counts = [result.get() for result in files]
        outcomes = [describe(result) for result in broken]
        tidy = not os.listdir(scratch)

    start = time.perf_counter()
    sequential = [count(path) for path in paths]
    sequential_seconds = time.perf_counter() - start
    same = counts == sequential

    print_table(paths, counts)
    verdict = "the same" if same else "DIFFERENT"
    print(f"\nin the pool {pooled_seconds:.1f} s, in sequence {sequential_seconds:.1f} s: {verdict} counts")
    print("\nwhat happened to the four:")
    for accident, (_, text) in zip(planned, outcomes, strict=True):
        print(f"  {accident.title:<28}{text}")
    met = all(seen == accident.expected for accident, (seen, _) in zip(planned, outcomes, strict=True))
    if not met:
        print("  NOT as expected:", ", ".join(accident.expected for accident in planned))
    if not tidy:
        print("  the interrupted task left its file behind")
    return same and met and tidy


def noop() -> None:
    """Cost nothing, so that only the pool is measured."""


def measure_rate(module: str, workers: int) -> float:
    """Time no-op jobs through one contender's pool, submitted one by one."""
    with importlib.import_module(module).Pool(workers) as pool:
        for result in [pool.apply_async(noop) for _ in range(1_000)]:
            result.get()
        start = time.perf_counter()
        for result in [pool.apply_async(noop) for _ in range(RATE_JOBS)]:
            result.get()
        return RATE_JOBS / (time.perf_counter() - start)


def find_original() -> str | None:
    default = Path(__file__).resolve().parent.parent / ".oracle" / "bin" / "python"
    python = os.environ.get("BILLIARD_ORIGINAL", str(default))
    return python if Path(python).exists() else None


def compare_rates(workers: int) -> None:
    contenders = [
        ("this package", sys.executable, "billiard"),
        ("multiprocessing", sys.executable, "multiprocessing"),
    ]
    if original := find_original():
        contenders.append(("original billiard", original, "billiard"))
    print(f"\n{RATE_JOBS:,} no-op tasks, {workers} workers, best of 3 each, taking turns:")
    best: defaultdict[str, float] = defaultdict(float)
    for _ in range(3):
        for name, python, module in contenders:
            command = [python, __file__, "--rate", module, "--workers", str(workers)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
            best[name] = max(best[name], float(done.stdout))
    for name, rate in best.items():
        print(f"  {name:<20}{rate:>10,.0f} tasks/s   ({best['this package'] / rate:.1f}x)")
    if not original:
        print("  (the original is not installed; `make oracle` does that)")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", type=int, default=max(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--limit", type=int, metavar="FILES", help="take only the first files")
    parser.add_argument("--no-rates", action="store_true", help="leave out the comparison of speeds")
    parser.add_argument("--rate", metavar="MODULE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rate:
        print(measure_rate(options.rate, options.workers))
        return 0
    good = run_census(options.workers, options.limit)
    if not options.no_rates:
        compare_rates(options.workers)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
