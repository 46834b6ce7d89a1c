"""What every kind of queue does alike, in one process and with a child.

The cases of the table are those that the Rust queue is taken through as well.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import queuework

import billiard

KINDS = ["Queue", "JoinableQueue", "SimpleQueue"]
TABLE = Path(__file__).parents[2] / "crates" / "billiard" / "tests" / "queue_conformance.txt"
#: What a `SimpleQueue` has not.
MORE = {"refuse", "nothing", "put_many", "get_many", "length", "full", "bound"}
#: A pipe has room for so much while nobody reads.
PIPE = 60_000


def _value(word):
    part, star, times = word.partition("*")
    return b"" if word == "-" else part.encode() * (int(times) if star else 1)


def _cases():
    """Yield a parameter for each case that a kind of queue can be taken through."""
    cases: dict[str, list[list[str]]] = {}
    for line in TABLE.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        verb, *words = line.split()
        if verb == "case":
            steps = cases.setdefault(" ".join(words), [])
        else:
            steps.append([verb, *words])
    for title, steps in cases.items():
        simple = not any(step[0] in MORE for step in steps)
        small = sum(len(_value(step[1])) for step in steps if step[0] == "put") < PIPE
        for kind in KINDS if simple and small else KINDS[:2]:
            yield pytest.param(kind, steps, id=f"{title}: {kind}")


def _step(queue, verb, *words):
    if verb == "put":
        queue.put(_value(words[0]))
    elif verb == "refuse":
        with pytest.raises(billiard.queues.Full):
            queue.put_nowait(_value(words[0]))
    elif verb == "get":
        assert queue.get() == _value(words[0])
    elif verb == "nothing":
        with pytest.raises(billiard.queues.Empty):
            queue.get_nowait()
    elif verb == "put_many":
        queue.put_many([_value(word) for word in words])
    elif verb == "get_many":
        assert queue.get_many(int(words[0])) == [_value(word) for word in words[1:]]
    elif verb == "length":
        assert queue.qsize() == int(words[0])
    else:
        assert verb in ("empty", "full")
        assert getattr(queue, verb)() is (words[0] == "yes")


@pytest.mark.usefixtures("leak_census")
@pytest.mark.parametrize(("kind", "steps"), list(_cases()))
def test_case(kind, steps):
    bounds = [int(step[1]) for step in steps if step[0] == "bound"]
    queue = getattr(billiard, kind)(*bounds)
    for step in steps:
        if step[0] != "bound":
            _step(queue, *step)
    queue.close()


@pytest.fixture(params=KINDS)
def make(request, ctx):
    """Make a queue of one kind."""
    return getattr(ctx, request.param)


def test_what_is_put_is_got_in_order(make):
    queue = make()
    for obj in (1, "two", [3]):
        queue.put(obj)
    assert [queue.get() for _ in range(3)] == [1, "two", [3]]
    queue.close()


def test_emptiness_is_told(make):
    queue = make()
    assert queue.empty()
    queue.put(None)
    assert not queue.empty()
    assert queue.get() is None
    assert queue.empty()
    queue.close()


def test_what_cannot_be_pickled_raises_and_is_not_put(make):
    queue = make()
    with pytest.raises(Exception, match="lambda"):
        queue.put(lambda: 0)
    queue.put("next")
    assert queue.get() == "next"
    queue.close()


def test_a_child_answers(make, start):
    questions, answers = make(), make()
    start(queuework.echo, questions, answers)
    for number in range(20):
        questions.put({"number": number})
        assert answers.get() == {"number": number}
    questions.put(None)
    for queue in (questions, answers):
        queue.close()


def test_closing_again_does_nothing(make):
    queue = make()
    queue.close()
    queue.close()
