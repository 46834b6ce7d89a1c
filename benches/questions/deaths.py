"""A thousand processes are killed beside a lock, a condition, an event: do the others go on, and when?"""

from __future__ import annotations

import importlib
import logging
import random
import time
from typing import Any

from harness.question import Answer, Bar, Metric, Parameters, Question, main
from harness.subject import OURS, Subject

CHOICES = 4


def take_turns(lock: Any, condition: Any, event: Any, semaphore: Any, seed: float) -> None:
    """Use all of them in a random order, for ever."""
    rng = random.Random(seed)
    while True:
        choice = rng.randrange(CHOICES)
        if choice == 0:
            with lock:
                time.sleep(0)
        elif choice == 1:
            with condition:
                condition.notify()
                condition.wait(0.005)
        elif choice == 2:
            event.set()
            event.wait(0.01)
            event.clear()
        elif semaphore.acquire(timeout=0.01):
            semaphore.release()


def hold(lock: Any, ready: Any) -> None:
    lock.acquire()
    ready.set()
    time.sleep(1000)


def noticed(ctx: Any) -> float:
    """Kill a holder, and tell how long a waiter in the queue has waited since, in ms."""
    lock, ready = ctx.Lock(), ctx.Event()
    holder = ctx.Process(target=hold, args=(lock, ready), daemon=True)
    holder.start()
    ready.wait()
    lock.acquire(timeout=random.random() * 0.2)
    holder.kill()
    start = time.perf_counter()
    lock.acquire(timeout=60)
    took = (time.perf_counter() - start) * 1e3
    holder.join()
    return took


def measure(subject: Subject, parameters: Parameters) -> Answer:
    package = importlib.import_module(subject.package)
    # It says of each lock that it was taken over.
    package.get_logger().setLevel(logging.ERROR)
    ctx = package.get_context("fork")
    shared = ctx.Lock(), ctx.Condition(), ctx.Event(), ctx.Semaphore(10**6)
    lock, condition = shared[:2]
    rng = random.Random(parameters["turn"])

    def start() -> Any:
        child = ctx.Process(target=take_turns, args=(*shared, rng.random()), daemon=True)
        child.start()
        return child

    children = [start() for _ in range(4)]
    hangs, longest = 0, 0.0
    for _ in range(parameters["kills"]):
        time.sleep(rng.random() * 0.004)
        place = rng.randrange(len(children))
        children[place].kill()
        before = time.perf_counter()
        for each in (lock, condition):
            if each.acquire(timeout=20):
                each.release()
            else:
                hangs += 1
        longest = max(longest, time.perf_counter() - before)
        children[place].join()
        children[place] = start()
    for child in children:
        child.kill()
        child.join()
    visible = [noticed(ctx) for _ in range(parameters["holders"])]
    return {"hangs": float(hangs), "longest": longest * 1e3, "visible": max(visible)}


QUESTION = Question(
    name="deaths",
    title="1,000 random deaths beside a lock",
    metrics=(
        Metric("hangs", "1,000 deaths: hangs", "", "lower", (Bar(most=0),), summary="worst", headline=True),
        Metric("longest", "1,000 deaths: longest wait of a survivor", "ms", "lower", summary="worst"),
        Metric(
            "visible", "a holder's death is noticed within", "ms", "lower", (Bar(most=100),), summary="worst"
        ),
    ),
    measure=measure,
    cases={"": {"kills": 1000, "holders": 50}},
    # The others hang at the first death of a holder, which is known.
    rounds={OURS: 3},
)

if __name__ == "__main__":
    main(QUESTION)
