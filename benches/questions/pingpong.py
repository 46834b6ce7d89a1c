"""How long does it take until the other process has noticed, and answered?"""

from __future__ import annotations

import importlib
import mmap
import time
from collections.abc import Callable
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import STDLIB, Subject

Side = Callable[[int], None]


def events(ctx: Any, times: int) -> Side:
    flags = ctx.Event(), ctx.Event()

    def side(me: int) -> None:
        mine, theirs = flags[me], flags[1 - me]
        for _ in range(times):
            if me == 0:
                theirs.set()
            mine.wait()
            mine.clear()
            if me == 1:
                theirs.set()

    return side


def conditions(ctx: Any, times: int) -> Side:
    condition, turn = ctx.Condition(), mmap.mmap(-1, 1)

    def side(me: int) -> None:
        for _ in range(times):
            with condition:
                while turn[0] != me:
                    condition.wait()
                turn[0] = 1 - me
                condition.notify()

    return side


def barriers(ctx: Any, times: int) -> Side:
    barrier = ctx.Barrier(2)

    def side(me: int) -> None:  # noqa: ARG001 - both sides do the same
        for _ in range(times):
            barrier.wait()

    return side


def semaphores(ctx: Any, times: int) -> Side:
    pair = ctx.Semaphore(0), ctx.Semaphore(0)

    def side(me: int) -> None:
        mine, theirs = pair[me], pair[1 - me]
        for _ in range(times):
            if me == 0:
                theirs.release()
            mine.acquire()
            if me == 1:
                theirs.release()

    return side


GAMES = {"Event": events, "Condition": conditions, "Barrier": barriers, "Semaphore": semaphores}


def measure(subject: Subject, parameters: Parameters) -> Answer:
    ctx = importlib.import_module(subject.package).get_context("fork")
    times = parameters["times"]
    side = list(GAMES.values())[parameters["game"]](ctx, times)
    child = ctx.Process(target=side, args=(1,))
    child.start()
    start = time.perf_counter()
    side(0)
    micros = (time.perf_counter() - start) / times * 1e6
    child.join()
    return {"turn": micros}


def question(name: str, games: tuple[str, ...], bars: tuple[Bar, ...]) -> Question:
    return Question(
        name=name,
        title="two processes that wait for each other",
        metrics=(Metric("turn", "there and back", "µs", "lower", bars, headline=bool(bars)),),
        measure=measure,
        cases={game: {"game": list(GAMES).index(game), "times": 20_000} for game in games},
    )


QUESTION = question("pingpong", ("Event", "Condition", "Barrier"), (Bar(2, against=STDLIB, cpus=2),))

if __name__ == "__main__":
    main(QUESTION)
