"""Runs Celery's own unit tests of the pool and its users on ours and on the original, and compares."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

from environments import NEWEST, ORIGINAL, OURS, Impossible, python, source

SUITES = ("t/unit/concurrency", "t/unit/worker", "t/unit/app/test_log.py")
#: How bad an outcome is.
RANKS = {"passed": 0, "skipped": 1, "failed": 2, "missing": 3}
LIMIT = 600.0

Outcomes = dict[str, str]


def outcomes(report: Path) -> Outcomes:
    """Read what became of each test; one that came several times, as subtests do, counts by its worst."""
    found: Outcomes = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        kinds = {child.tag for child in case}
        outcome = "skipped" if "skipped" in kinds else "passed"
        if kinds & {"failure", "error"}:
            outcome = "failed"
        found[name] = max(found.get(name, outcome), outcome, key=RANKS.__getitem__)
    return found


def ask(package: str, folder: Path) -> Outcomes:
    """Run the tests on one of the packages, whose environment has been made."""
    report = folder / f"{package}.xml"
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly", f"--junit-xml={report}")
    with (folder / f"{package}.log").open("wb") as log:
        subprocess.run(
            [python(NEWEST, package), "-m", "pytest", *options, *SUITES],
            cwd=source(),
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            timeout=LIMIT,
            check=False,
        )
    if not report.exists():
        raise Impossible(
            f"Celery's tests do not run on {package}:\n{(folder / f'{package}.log').read_text()[-3000:]}"
        )
    return outcomes(report)


def worse(ours: Outcomes, original: Outcomes) -> list[str]:
    """Name every test that comes out worse on ours."""
    return [
        f"{name}: {ours.get(name, 'missing')}, and {outcome} on the original"
        for name, outcome in sorted(original.items())
        if RANKS[ours.get(name, "missing")] > RANKS[outcome]
    ]


def compare() -> tuple[bool, str]:
    """Run both; tell whether ours is as good, and how it is."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(ask, package, Path(folder)) for package in (OURS, ORIGINAL)]
        ours, original = (one.result() for one in asked)
    found = worse(ours, original)
    counts = Counter(ours.values())
    summary = ", ".join(f"{counts[outcome]} {outcome}" for outcome in RANKS if counts[outcome])
    if not found:
        return True, f"{summary}; none worse than on the original"
    return False, f"{summary}; {len(found)} worse than on the original:\n" + "\n".join(found)
