"""Runs the integration with Celery: workers of all modes and versions, and Celery's own unit tests.

tests/celery/run.py                 everything
tests/celery/run.py --short         the newest Celery, and what takes no long time
tests/celery/run.py --original      these tests on the original package: are they right?
tests/celery/run.py --make          only the environments
tests/celery/run.py --versions 5.7.0 --modes fair,native -k warm
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import units
from environments import NEWEST, ORIGINAL, OURS, VERSIONS, Impossible, make, python, require_redis, source

HERE = Path(__file__).resolve().parent
#: The tests of the native pool by itself, without a broker.
NATIVE_POOL = HERE.parent / "celery_native"
#: Most of these tests wait: they may be more than the CPUs, but not in each other's way.
AT_ONCE = 4
LIMIT = 900.0

MODES = ("fair", "native", "fast", "blocking", "native_blocking")
#: What is asked of Celery's older versions: the modes that users have.
MODES_OF_OLDER = ("fair", "native")
SHORT_MODES = ("fair", "native", "blocking")
UNKNOWN_TO_ORIGINAL = ("native", "native_blocking")
#: What pytest says when nothing was chosen; a mode may have no long tests.
NOTHING_COLLECTED = 5


@dataclass(frozen=True)
class Job:
    """One run of the tests: in a mode, with a version of Celery, on a package."""

    version: str
    package: str
    mode: str
    arguments: tuple[str, ...] = ()
    tests: Path = HERE

    @property
    def title(self) -> str:
        return f"Celery {self.version}, {self.mode} on {self.package} {' '.join(self.arguments)}".rstrip()

    def run(self) -> tuple[bool, str]:
        """Run it in a session of its own; tell whether it passed, and what it said."""
        # Not in the tree: the path of a socket must be short.
        folder = tempfile.mkdtemp(prefix=f"celery-{self.mode.replace(' ', '-')}-")
        with tempfile.TemporaryFile("w+") as out:
            interpreter = python(self.version, self.package)
            process = subprocess.Popen(
                [interpreter, "-m", "pytest", str(self.tests), f"--basetemp={folder}/t", *self.arguments],
                env={**os.environ, "BILLIARD_CELERY_MODES": self.mode},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
            try:
                status = process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                # It ends its workers on the way out; they have sessions of their own.
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                status = -1
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            out.seek(0)
            said = out.read()
        if status in (0, NOTHING_COLLECTED):
            shutil.rmtree(folder)
            counts = [
                line
                for line in said.splitlines()
                if " in " in line and ("passed" in line or "deselected" in line)
            ]
            return True, counts[-1].strip("= ") if counts else said
        return False, f"{said}\nwhat its workers said is in {folder}"


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    package = ORIGINAL if options.original else OURS
    selection = ("-k", options.select) if options.select else ()
    for version in options.versions:
        if package == OURS and not selection:
            yield Job(version, package, "the native pool alone", tests=NATIVE_POOL)
        for mode in options.modes:
            if options.original and mode in UNKNOWN_TO_ORIGINAL:
                continue
            if version != NEWEST and mode not in MODES_OF_OLDER:
                continue
            if selection:
                yield Job(version, package, mode, selection)
                continue
            yield Job(version, package, mode, ("-m", "not long"))
            if not options.short:
                yield Job(version, package, mode, ("-m", "long"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    option = parser.add_argument
    option("--short", action="store_true", help="the newest Celery, without the long tests")
    option("--original", action="store_true", help="test the original package, which tests the tests")
    option("--make", action="store_true", help="make the environments, and test nothing")
    option("--versions", type=lambda text: text.split(","), help=f"of Celery; default: {','.join(VERSIONS)}")
    option("--modes", type=lambda text: text.split(","), help=f"default: {','.join(MODES)}")
    option("-k", dest="select", help="only the tests with such names")
    options = parser.parse_args()
    options.whole = not (
        options.short or options.original or options.versions or options.modes or options.select
    )
    options.versions = options.versions or ([NEWEST] if options.short else list(VERSIONS))
    options.modes = options.modes or list(SHORT_MODES if options.short else MODES)
    if unknown := {*options.versions} - {*VERSIONS} | {*options.modes} - {*MODES}:
        parser.error(f"no such version or mode: {', '.join(sorted(unknown))}")
    return options


def main() -> int:
    options = parse()
    try:
        require_redis()
        for version in options.versions:
            make(version, ORIGINAL if options.original else OURS)
        if options.whole:
            make(NEWEST, ORIGINAL)
            source()
    except Impossible as reason:
        print(f"celery: {reason}", file=sys.stderr)
        return 2
    if options.make:
        return 0
    began = time.monotonic()
    failed = 0
    with ThreadPoolExecutor(AT_ONCE) as threads:
        running = {threads.submit(job.run): job.title for job in jobs(options)}
        if options.whole:
            running[threads.submit(units.compare)] = f"Celery {NEWEST}, its own tests"
        for one in as_completed(running):
            title = running[one]
            passed, said = one.result()
            failed += not passed
            print(f"celery: {title}: {said if passed else 'FAILED'}", flush=True)
            if not passed:
                print(said, flush=True)
    print(f"celery: {len(running) - failed} of {len(running)} passed in {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
