"""Memory that forked workers have in common stays so when they collect garbage."""

from __future__ import annotations

import gc

import pytest

import billiard

MIB = 1 << 20
#: A list with its collector's head has more than 64 bytes, and nothing but the collector writes to it here.
COUNT = 300_000
kept = []


def memory_of_its_own():
    with open("/proc/self/smaps_rollup") as rollup:
        fields = (line.split() for line in rollup)
        return next(int(field[1]) * 1024 for field in fields if field[0] == "Private_Dirty:")


def collect():
    """How much memory collecting garbage takes, and how much is out of the collector's reach."""
    before = memory_of_its_own()
    gc.collect()
    return memory_of_its_own() - before, gc.get_freeze_count()


@pytest.fixture
def many(thawed):  # noqa: ARG001
    """Many objects of the program."""
    kept.extend([] for _ in range(COUNT))
    yield
    kept.clear()


@pytest.mark.usefixtures("many")
def test_frozen_memory_is_not_copied_and_thaws_here(make_pool):
    fork = billiard.get_context("fork")
    taken, count = make_pool(1, context=fork).apply(collect)
    assert taken > COUNT * 64 / 2
    assert count < COUNT
    taken, count = make_pool(1, context=fork, freeze=True).apply(collect)
    assert taken < 4 * MIB
    assert count >= COUNT
    assert gc.get_freeze_count() < COUNT


@pytest.mark.usefixtures("many")
def test_replacements_are_frozen_too(make_pool):
    pool = make_pool(1, context=billiard.get_context("fork"), freeze=True, maxtasksperchild=1)
    for _ in range(3):
        taken, count = pool.apply(collect)
        assert taken < 4 * MIB
        assert count >= COUNT
    assert gc.get_freeze_count() < COUNT


@pytest.mark.usefixtures("many")
def test_what_the_program_has_frozen_stays_frozen(make_pool):
    gc.freeze()
    frozen = gc.get_freeze_count()
    taken, _ = make_pool(1, context=billiard.get_context("fork"), freeze=True).apply(collect)
    assert taken < 4 * MIB
    assert gc.get_freeze_count() == frozen


def test_where_nothing_is_copied_it_makes_no_difference(make_pool):
    assert make_pool(1, context=billiard.get_context("spawn"), freeze=True).apply(abs, (-1,)) == 1


GARBAGE = """
import gc, weakref

from billiard._freezing import frozen

class Node:
    pass

gc.collect()
seen, most, kept = [], 0, []
for turn in range(2_000):
    # Garbage when it has been frozen once, and is old.
    kept = [Node() for _ in range(50)]
    for node in kept:
        node.itself = node
    seen = [ref for ref in (*seen, *map(weakref.ref, kept)) if ref() is not None]
    most = max(most, len(seen))
    with frozen(True):
        # Finds nothing: what there is is frozen.
        gc.collect()
print(most)
"""


def test_garbage_does_not_grow_old_by_being_frozen(program):
    most = int(program(GARBAGE).stdout)
    # As many as may be a quarter of what a small program has, and a tenth of what there was in all.
    assert 50 < most < 20_000


GENERATIONS = """
import gc

from billiard._freezing import frozen

kept = [[] for _ in range(20_000)]
with frozen(True):
    pass
assert any(one is kept for one in gc.get_objects())
with frozen(True):
    # The program does so in a hook, say before a worker is started.
    gc.freeze()
assert not any(one is kept for one in gc.get_objects())
count = gc.get_freeze_count()
with frozen(True):
    pass
assert gc.get_freeze_count() == count > 20_000
"""


def test_a_hook_that_freezes_has_the_last_word(program):
    program(GENERATIONS)


SWITCHED_OFF = """
import gc, weakref

from billiard._freezing import frozen

class Node:
    pass

gc.disable()
node = Node()
node.itself = node
ref = weakref.ref(node)
with frozen(True):
    del node
    gc.collect()
    assert ref() is None
"""


def test_who_collects_garbage_alone_finds_it(program):
    program(SWITCHED_OFF)
