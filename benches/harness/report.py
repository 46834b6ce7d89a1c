"""Turns answers into records, records into verdicts, verdicts into a table."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.question import Bar, Metric, Question
from harness.subject import NAMES, ORIGINAL, OURS, STDLIB

About = Mapping[str, Any]
Rounds = Sequence[float | None]

ABSENT = "-"
NEVER = "never"
BEGIN = "<!-- measured:begin (rewritten by benches/compare.py --readme) -->"
END = "<!-- measured:end -->"


@dataclass(frozen=True)
class Row:
    """One line of the table: a metric in one case, with what each contender answered, round by round."""

    question: Question
    case: str
    metric: Metric
    rounds: Mapping[str, Rounds]

    @property
    def title(self) -> str:
        return f"{self.metric.title}, {self.case}" if self.case else self.metric.title

    def summary(self, subject: str) -> float | None:
        """Give the number that stands for a contender; None when it was not asked, or once did not answer."""
        return summarize(self.metric, self.rounds.get(subject, ()))

    def advantage(self, peer: str) -> float | None:
        """Say how many times better we are than a peer; None when a number is missing or zero."""
        ours, theirs = self.summary(OURS), self.summary(peer)
        if not ours or not theirs or min(ours, theirs) <= 0:
            return None
        return ours / theirs if self.metric.better == "higher" else theirs / ours

    def judge(self, bar: Bar, cpus: int) -> str:
        """Say ``pass``, ``MISS``, or ``n/a`` where the bar cannot be applied."""
        if bar.cpus > cpus:
            return "n/a"
        ours = self.summary(OURS)
        if ours is None:
            return "MISS" if self.rounds.get(OURS) else "n/a"
        number = ours if bar.against is None else self.advantage(bar.against)
        if number is None:
            return "n/a"
        return "pass" if bar.reached(number) else "MISS"

    def verdict(self, cpus: int) -> str:
        return " / ".join(self.judge(bar, cpus) for bar in self.metric.bars)


def summarize(metric: Metric, rounds: Rounds) -> float | None:
    numbers = [number for number in rounds if number is not None]
    if not numbers or len(numbers) < len(rounds):
        return None
    if metric.summary == "median":
        return statistics.median(numbers)
    return max(numbers) if metric.better == "lower" else min(numbers)


def records(row: Row, about: Mapping[str, About], machine: About) -> Iterable[dict[str, Any]]:
    """Write one row down for machines: a record for each contender."""
    for subject, rounds in row.rounds.items():
        numbers = [number for number in rounds if number is not None]
        yield {
            "bench": row.question.name,
            "case": row.case,
            "metric": row.metric.key,
            "subject": subject,
            **about.get(subject, {}),
            "n": len(rounds),
            "unanswered": len(rounds) - len(numbers),
            "unit": row.metric.unit,
            "min": min(numbers, default=None),
            "median": statistics.median(numbers) if numbers else None,
            "max": max(numbers, default=None),
            "rounds": list(rounds),
            **machine,
        }


def number(value: float) -> str:
    """Print a number with as many digits as mean something."""
    for above, form in ((1000, ",.0f"), (100, ".0f"), (10, ".1f")):
        if abs(value) >= above:
            return format(value, form)
    return format(value, ".2f").removesuffix(".00")


def cell(row: Row, subject: str, *, spread: bool) -> str:
    rounds = row.rounds.get(subject)
    if not rounds:
        return ABSENT
    value = row.summary(subject)
    if value is None:
        return NEVER
    text = number(value)
    if spread and len(rounds) > 1:
        known = [one for one in rounds if one is not None]
        text += f" ({number(min(known))} … {number(max(known))})"
    return text


def ratio(row: Row, peer: str) -> str:
    advantage = row.advantage(peer)
    return ABSENT if advantage is None else f"{number(advantage)}x"


def table(rows: Iterable[Row], cpus: int) -> str:
    """Lay out everything that was measured, with bars and verdicts."""
    lines = [
        "| measured | unit | ours (min … max) | original | stdlib | x original | x stdlib | bar | verdict |",
        "|---|---|--:|--:|--:|--:|--:|---|---|",
    ]
    for row in rows:
        cells = [
            row.title,
            row.metric.unit,
            *(cell(row, subject, spread=subject == OURS) for subject in NAMES),
            ratio(row, ORIGINAL),
            ratio(row, STDLIB),
            ", ".join(bar.text(row.metric.unit) for bar in row.metric.bars),
            row.verdict(cpus),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def readme_table(rows: Iterable[Row], machine: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """Lay out what a reader wants to know first: our numbers and the ratios."""
    original = f"billiard {versions.get(ORIGINAL, '4.3.2')}"
    lines = [
        f"| | this package | {original} | multiprocessing | x billiard | x multiprocessing |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        if not row.metric.headline:
            continue
        values = [
            text if text in (ABSENT, NEVER) else f"{text} {row.metric.unit}".strip()
            for text in (cell(row, subject, spread=False) for subject in NAMES)
        ]
        lines.append("| " + " | ".join([row.title, *values, ratio(row, ORIGINAL), ratio(row, STDLIB)]) + " |")
    lines += [
        "",
        f"Medians of interleaved runs on {machine['cpus']} CPUs, Python {machine['python']}, "
        f"Linux {machine['kernel']}; counts: the worst run. *never*: no answer before the bench gave up.",
    ]
    return "\n".join(lines)


def rewrite_block(text: str, block: str) -> str:
    """Put a block between the two markers of the README."""
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"the text needs one pair of markers: {BEGIN} … {END}")
    return pattern.sub(lambda _: f"{BEGIN}\n{block}\n{END}", text)
