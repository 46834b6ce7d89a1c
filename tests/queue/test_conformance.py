"""What every kind of queue does alike, in one process and with a child."""

from __future__ import annotations

import pytest
import queuework

KINDS = ["Queue", "JoinableQueue", "SimpleQueue"]


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
