"""A bench that judges wrongly is worse than none."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from compare import CELERY, ORDER, all_questions
from harness.question import Answer, Bar, Metric, Parameters, Question, percentile
from harness.report import BEGIN, END, Row, number, records, rewrite_block, table
from harness.subject import ORIGINAL, OURS, STDLIB, Subject

BENCHES = Path(__file__).resolve().parents[2] / "benches"


def unasked(_subject: Subject, _parameters: Parameters) -> Answer:
    raise AssertionError("these tests measure nothing")


def row(metric: Metric, **rounds: list[float | None]) -> Row:
    question = Question(name="sample", title="a sample", metrics=(metric,), measure=unasked)
    return Row(question, "", metric, rounds)


RATE = Metric("rate", "rate", "/s", "higher", (Bar(15, against=ORIGINAL),))
DELAY = Metric("delay", "delay", "ms", "lower", (Bar(most=20),))


@pytest.mark.parametrize(("ours", "verdict"), [(1500.0, "pass"), (1499.0, "MISS")])
def test_ratio_of_medians_decides(ours: float, verdict: str) -> None:
    sample = row(RATE, ours=[1.0, ours, 9e9], original=[100.0, 1.0, 1e6])
    assert sample.advantage(ORIGINAL) == ours / 100
    assert sample.verdict(cpus=2) == verdict


def test_less_is_better_where_it_is() -> None:
    sample = row(DELAY, ours=[2.0], original=[40.0])
    assert sample.advantage(ORIGINAL) == 20
    assert sample.verdict(cpus=2) == "pass"
    assert row(DELAY, ours=[20.1]).verdict(cpus=2) == "MISS"


def test_one_unanswered_round_of_ours_misses() -> None:
    assert row(DELAY, ours=[1.0, None, 1.0]).verdict(cpus=2) == "MISS"


def test_an_absent_contender_is_no_verdict() -> None:
    assert row(RATE, ours=[1.0], stdlib=[1.0]).verdict(cpus=2) == "n/a"
    assert row(RATE, original=[1.0]).verdict(cpus=2) == "n/a"


def test_promises_are_judged_by_the_worst_round() -> None:
    lost = Metric("lost", "lost", "", "lower", (Bar(most=0),), summary="worst")
    assert row(lost, ours=[0.0, 0.0, 1.0]).verdict(cpus=2) == "MISS"
    healed = Metric("healed", "healed", "", "higher", (Bar(50),), summary="worst")
    assert row(healed, ours=[50.0, 49.0, 50.0]).verdict(cpus=2) == "MISS"


def test_a_bar_for_two_cpus_does_not_stand_on_one() -> None:
    metric = Metric("p50", "p50", "µs", "lower", (Bar(20, against=ORIGINAL, cpus=2),))
    assert row(metric, ours=[10.0], original=[10.0]).verdict(cpus=1) == "n/a"
    assert row(metric, ours=[10.0], original=[10.0]).verdict(cpus=2) == "MISS"


def test_the_table_tells_never_from_not_asked() -> None:
    text = table([row(DELAY, ours=[1.5], stdlib=[None])], cpus=2).splitlines()[-1]
    assert text == "| delay | ms | 1.50 | - | never | - | - | ≤ 20 ms | pass |"


def test_a_record_for_each_contender() -> None:
    sample = row(RATE, ours=[3.0, 1.0, 2.0], stdlib=[None])
    ours, stdlib = records(sample, {OURS: {"version": "1"}, STDLIB: {"version": "2"}}, {"cpus": 2})
    assert (ours["min"], ours["median"], ours["max"], ours["n"]) == (1.0, 2.0, 3.0, 3)
    assert (ours["version"], ours["cpus"]) == ("1", 2)
    assert (stdlib["median"], stdlib["unanswered"]) == (None, 1)


def test_the_readme_block_is_replaced_and_nothing_else() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert rewrite_block(text, "new \\1") == f"before\n{BEGIN}\nnew \\1\n{END}\nafter\n"
    with pytest.raises(ValueError, match="one pair of markers"):
        rewrite_block("no markers", "new")


def test_numbers_keep_the_digits_that_mean_something() -> None:
    assert [number(value) for value in (0.0, 1.234, 12.34, 123.4, 1234.5)] == [
        "0",
        "1.23",
        "12.3",
        "123",
        "1,234",
    ]


def test_percentile_takes_the_largest_of_few() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([float(value) for value in range(1000)], 0.99) == 990.0


def ask(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PYTHONPATH": str(path)} if path else {})}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=BENCHES,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("question", "metric"), [("startup", "life"), ("importing", "import"), ("recycling_forkserver", "rate")]
)
def test_a_question_runs_alone(question: str, metric: str) -> None:
    done = ask(f"questions.{question}", "stdlib")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["bench"], record["subject"]) == (question, "stdlib")
    assert record["answer"][metric] > 0


@pytest.mark.parametrize("package", ["billiard", "multiprocessing"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "none"])
def test_starts_are_timed_where_there_is_the_method(package: str, method: str) -> None:
    done = ask("programs.starts", package, method, "2")
    assert (done.returncode, done.stderr) == (0, "")
    lives = json.loads(done.stdout)
    if method in importlib.import_module(package).get_all_start_methods():
        assert len(lives) == 2
        assert min(lives) > 0
    else:
        assert lives is None


def test_every_question_has_its_place_in_the_table() -> None:
    assert list(all_questions()) == [*ORDER, *CELERY]


def test_a_debug_build_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "billiard"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "_billiard.py").write_text(
        "def build_info(): return {'version': '0', 'profile': 'debug', 'features': ''}\n"
    )
    done = ask("questions.startup", "ours", path=tmp_path)
    assert done.returncode == 1
    assert "debug build" in done.stderr
