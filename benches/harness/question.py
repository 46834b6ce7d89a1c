"""The shape of a question: what is asked, of whom, in which cases, and which bar the answer must reach."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.subject import NAMES, ORIGINAL, OURS, STDLIB, Subject, load

Parameters = Mapping[str, int]
Answer = dict[str, float | None]
"""A value for each metric; None when the contender never answered."""


@dataclass(frozen=True)
class Bar:
    """What our value, or its advantage over a peer, must reach.

    With ``against`` the number compared is how many times better we are: ours/theirs where higher is better,
    theirs/ours where lower is.
    """

    least: float | None = None
    most: float | None = None
    against: str | None = None
    cpus: int = 1
    """The bar stands only where that many CPUs are usable."""

    def text(self, unit: str) -> str:
        if self.against is not None:
            return f"≥ {self.least:g}x {self.against}"
        sign, number = ("≥", self.least) if self.most is None else ("≤", self.most)
        return f"{sign} {number:,.10g} {unit}".rstrip()

    def reached(self, number: float) -> bool:
        above = self.least is None or number >= self.least
        below = self.most is None or number <= self.most
        return above and below


@dataclass(frozen=True)
class Metric:
    """One number of an answer."""

    key: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    bars: tuple[Bar, ...] = ()
    summary: Literal["median", "worst"] = "median"
    """Speeds are judged by the median round, promises by the worst one."""
    headline: bool = False
    """Whether the README shows it."""


@dataclass(frozen=True)
class Question:
    """One program of measurements.

    Attributes:
        rounds: How often each contender is asked; one that is missing here is not asked.
        overrides: Parameters that replace those of the case, by contender: a slow one gets less work where
            the answer is a rate.
        limit: Seconds after which one measurement is given up.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    measure: Callable[[Subject, Parameters], Answer]
    cases: Mapping[str, Parameters] = field(default_factory=lambda: {"": {}})
    rounds: Mapping[str, int] = field(default_factory=lambda: {OURS: 5, ORIGINAL: 5, STDLIB: 5})
    overrides: Mapping[str, Parameters] = field(default_factory=dict)
    limit: float = 120.0

    def answer(self, subject: Subject, case: str, turn: int) -> Answer:
        """Measure once; ``turn`` tells the rounds apart where they must differ, as a seed does."""
        own = self.overrides.get(subject.name, {})
        return self.measure(subject, {**self.cases[case], **own, "turn": turn})


def usable_cpus() -> int:
    return len(os.sched_getaffinity(0))


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def percentile(values: list[float], share: float) -> float:
    """Take the value below which ``share`` of them lie; the largest when there are too few to tell."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def main(question: Question) -> None:
    """Run one question as a program: a line of JSON for each case."""
    parser = argparse.ArgumentParser(description=question.title)
    parser.add_argument("subject", choices=NAMES)
    parser.add_argument("--case", choices=list(question.cases), action="append")
    parser.add_argument("--turn", type=int, default=0, help="number of the round, from 0")
    options = parser.parse_args()
    subject = load(options.subject)
    for case in options.case or question.cases:
        record = {
            "bench": question.name,
            "case": case,
            "subject": subject.name,
            "version": subject.version,
            "profile": subject.profile,
            "answer": question.answer(subject, case, options.turn),
        }
        print(json.dumps(record), flush=True)
    # The answer is out; a contender that cannot end its own threads must not keep us here.
    sys.stderr.flush()
    os._exit(0)
