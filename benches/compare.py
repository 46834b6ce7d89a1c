"""Runs the questions against all contenders, interleaved, and judges the answers.

    benches/compare.py                          everything
    benches/compare.py throughput limits        these questions
    benches/compare.py --rounds 1 --subjects ours,stdlib roundtrip
    benches/compare.py --readme                 also rewrites the table in README.md
    benches/compare.py --celery                 those about Celery; `make bench-celery` knows the interpreters
    benches/compare.py --from benches/results/last.json --readme

Every measurement is a process of its own (``python -m questions.NAME SUBJECT``), and the contenders take
turns: what the neighbours of this machine do hits all of them alike.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import pkgutil
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import questions
from harness.question import Question, usable_cpus
from harness.report import Row, readme_table, records, rewrite_block, table
from harness.subject import NAMES, ORIGINAL, OURS, STDLIB

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RESULTS = HERE / "results"

ORDER = (
    "throughput",
    "celery_loop",
    "roundtrip",
    "mapping",
    "payload",
    "pool_large",
    "pipes",
    "lost",
    "limits",
    "armed",
    "startup",
    "starting",
    "importing",
    "recycling",
    "recycling_forkserver",
    "locking",
    "relocking",
    "contending",
    "pingpong",
    "semaphores",
    "deaths",
    "counting",
    "allocating",
    "queue_throughput",
    "queue_large",
    "views_memory",
    "queue_roundtrip",
    "manager_dict",
    "idle",
    "pending",
    "survivors",
    "chaos",
    "leaks",
)

CELERY = (
    "celery_rate",
    "celery_native_rate",
    "celery_latency",
    "celery_ends",
    "celery_memory",
    "celery_stops",
    "celery_recycling",
    "celery_native_recycling",
)
"""Asked only when they are named, or by ``--celery``: they need interpreters that have Celery, and Redis."""

BUSY = 0.5
"""A load above this means that somebody else is using the CPUs."""


class Refused(Exception):
    """A contender cannot be measured here, for a reason that is worth reading."""


def all_questions() -> dict[str, Question]:
    found = {module.name for module in pkgutil.iter_modules(questions.__path__)}
    known = (*ORDER, *CELERY)
    names = [*(name for name in known if name in found), *sorted(found.difference(known))]
    return {name: importlib.import_module(f"questions.{name}").QUESTION for name in names}


def status(text: str) -> None:
    """Show what is going on, on one line that the next one replaces; only to somebody who watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def note(text: str) -> None:
    status("")
    print(text, file=sys.stderr, flush=True)


def environment(name: str) -> str:
    """Give the interpreter of a virtual environment of this checkout, or the one that runs this program."""
    python = ROOT / name / "bin" / "python"
    return str(python) if python.exists() else sys.executable


def run(python: str, arguments: list[str], limit: float) -> subprocess.CompletedProcess[str] | None:
    """Run a program in a session of its own and end what it leaves behind; None if it took too long."""
    # Files, not pipes: an orphaned worker that holds a pipe open would keep us waiting for its end.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [python, *arguments],
            cwd=HERE,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(process.args, process.returncode, out.read(), err.read())


def last_line(text: str, otherwise: str) -> str:
    return (text.strip().splitlines() or [otherwise])[-1]


def introduce(subject: str, python: str) -> dict[str, Any]:
    """Ask a contender who it is, in its own interpreter."""
    program = (
        "import json, platform, sys\n"
        "from harness.subject import load\n"
        "subject = load(sys.argv[1])\n"
        "print(json.dumps({'version': subject.version, 'profile': subject.profile,"
        " 'python': platform.python_version()}))\n"
    )
    done = run(python, ["-c", program, subject], 30)
    if done is None:
        raise Refused("it hangs on import")
    if done.returncode:
        raise Refused(last_line(done.stderr, "no reason given"))
    return dict(json.loads(done.stdout))


def output_of(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def this_machine() -> dict[str, Any]:
    return {
        "rustc": output_of("rustc", "--version"),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpus": usable_cpus(),
        "load": os.getloadavg()[0],
        "commit": output_of("git", "rev-parse", "--short=12", "HEAD"),
        "dirty": bool(output_of("git", "status", "--porcelain", "--untracked-files=no")),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


class Comparison:
    """One run: which contenders, in which interpreters, how often."""

    def __init__(self, pythons: Mapping[str, str], rounds: int | None, verbose: bool) -> None:
        self._pythons = pythons
        self._rounds = rounds
        self._verbose = verbose

    def rounds_of(self, question: Question, subject: str) -> int:
        if subject not in self._pythons or subject not in question.rounds:
            return 0
        wanted = question.rounds[subject]
        if self._rounds is None:
            return wanted
        # More rounds than planned are for us only: some answers of a peer take a minute.
        return self._rounds if subject == OURS else min(wanted, self._rounds)

    def ask(self, question: Question) -> Iterable[Row]:
        """Let the contenders take turns in each case, and give a row for each metric."""
        for case in question.cases:
            answers: dict[str, list[dict[str, float | None]]] = {}
            for turn in range(max(self.rounds_of(question, subject) for subject in NAMES)):
                for subject in NAMES:
                    if turn < self.rounds_of(question, subject):
                        answers.setdefault(subject, []).append(self._measure(question, case, subject, turn))
            for metric in question.metrics:
                by_subject = {
                    subject: [answer.get(metric.key) for answer in given]
                    for subject, given in answers.items()
                }
                yield Row(question, case, metric, by_subject)

    def _measure(self, question: Question, case: str, subject: str, turn: int) -> dict[str, float | None]:
        label = f"{question.name} {case}".strip()
        status(f"{label}: {subject}, round {turn + 1}")
        arguments = ["-m", f"questions.{question.name}", subject, "--case", case, "--turn", str(turn)]
        done = run(self._pythons[subject], arguments, question.limit)
        if done is None:
            complaint = f"no answer after {question.limit:g} s"
        elif done.returncode:
            complaint = f"exit code {done.returncode}: " + last_line(done.stderr, "no message")
        else:
            answer: dict[str, float | None] = json.loads(done.stdout.splitlines()[-1])["answer"]
            if self._verbose:
                note(f"{label}: {subject}: {answer}")
            return answer
        note(f"{label}: {subject}: {complaint}")
        return {}


def find_contenders(options: argparse.Namespace) -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    """Find out who can be measured. Ours must be; without a peer there is one column less."""
    pythons, about = {}, {}
    wanted = {OURS: options.python, ORIGINAL: options.original, STDLIB: options.python}
    for subject in options.subjects:
        try:
            about[subject] = introduce(subject, wanted[subject])
        except Refused as reason:
            if subject == OURS:
                sys.exit(f"cannot measure ours: {reason}")
            note(f"without {subject}: {reason}")
            continue
        pythons[subject] = wanted[subject]
    if len({one["python"] for one in about.values()}) > 1:
        note(f"warning: different interpreters are compared: {about}")
    return pythons, about


def parse() -> argparse.Namespace:
    known = all_questions()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    option = parser.add_argument
    option("questions", nargs="*", metavar="QUESTION", help=f"default: all of {', '.join(ORDER)}")
    option("--celery", action="store_true", help=f"ask {', '.join(CELERY)}")
    option("--rounds", type=int, help="rounds of ours, and the most that a peer gets")
    option("--subjects", default=",".join(NAMES), help="comma-separated; default: %(default)s")
    option("--python", default=environment(".venv"), help="interpreter that has ours")
    option("--original", default=environment(".oracle"), help="interpreter that has the original")
    option("--output", type=Path, default=RESULTS / "last.json", help="where the records go")
    option("--from", dest="source", type=Path, help="take the records of an earlier run; measure nothing")
    option("--readme", action="store_true", help="rewrite the table in README.md")
    option("--verbose", action="store_true", help="print every answer")
    options = parser.parse_args()
    if unknown := set(options.questions).difference(known):
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    options.questions = [known[name] for name in options.questions or (CELERY if options.celery else ORDER)]
    options.subjects = [name for name in NAMES if name in options.subjects.split(",")]
    return options


def rows_from(source: Path) -> tuple[list[Row], dict[str, Any], dict[str, str]]:
    """Rebuild the rows of an earlier run from its records."""
    known = all_questions()
    saved = json.loads(source.read_text())["records"]
    grouped: dict[tuple[str, str, str], dict[str, list[float | None]]] = {}
    versions: dict[str, str] = {}
    for one in saved:
        grouped.setdefault((one["bench"], one["case"], one["metric"]), {})[one["subject"]] = one["rounds"]
        versions[one["subject"]] = one["version"]
    rows = [
        Row(known[bench], case, next(metric for metric in known[bench].metrics if metric.key == key), rounds)
        for (bench, case, key), rounds in grouped.items()
    ]
    return rows, saved[-1], versions


def measure(options: argparse.Namespace) -> tuple[list[Row], dict[str, Any], dict[str, str]]:
    pythons, about = find_contenders(options)
    machine = this_machine()
    if machine["load"] > BUSY:
        note(f"warning: this machine is busy (load {machine['load']:.2f})")
    comparison = Comparison(pythons, options.rounds, options.verbose)
    rows: list[Row] = []
    for question in options.questions:
        rows += comparison.ask(question)
        saved = [record for row in rows for record in records(row, about, machine)]
        # After each question: a run of an hour that is interrupted has not been for nothing.
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps({"records": saved}, indent=1) + "\n")
    status("")
    python = next(iter(about.values()))["python"]
    return rows, {**machine, "python": python}, {name: one["version"] for name, one in about.items()}


def main() -> int:
    options = parse()
    rows, machine, versions = rows_from(options.source) if options.source else measure(options)
    print(table(rows, machine["cpus"]))
    if options.readme:
        readme = ROOT / "README.md"
        readme.write_text(rewrite_block(readme.read_text(), readme_table(rows, machine, versions)))
    verdicts = [row.verdict(machine["cpus"]) for row in rows if row.metric.bars]
    missed = sum("MISS" in verdict for verdict in verdicts)
    judged = sum(verdict.strip("n/a ") != "" for verdict in verdicts)
    note(f"bars: {judged - missed} reached, {missed} missed, {len(verdicts) - judged} not judged")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
