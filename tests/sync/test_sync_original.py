"""The same program on the original package and on this one says the same."""

from __future__ import annotations

PROGRAM = """
import pickle, signal, threading, time
import billiard
from billiard import synchronize

def attempt(what, call, *args, **options):
    try:
        answer = call(*args, **options)
    except BaseException as error:
        answer = f"{type(error).__name__}: {error}"
    print(what, answer)

def states(lock):
    native = lock._semlock
    return native.kind, native.maxvalue, native.name, native._count(), native._is_mine(), native._is_zero()

def elsewhere(call, *args):
    answers = []
    def run():
        try:
            answers.append(call(*args))
        except BaseException as error:
            answers.append(f"{type(error).__name__}: {error}")
    thread = threading.Thread(target=run, name="elsewhere")
    thread.start()
    thread.join()
    return answers[0]

for name, args in [("Lock", ()), ("RLock", ()), ("Semaphore", ()), ("Semaphore", (3,)), ("Semaphore", (0,)),
                   ("BoundedSemaphore", ()), ("BoundedSemaphore", (2,))]:
    lock = getattr(billiard, name)(*args)
    print(name, args, lock, states(lock))
    for block, timeout in [(True, 0.0), (False, None), (False, 5), (True, -1), (1, 0.001), (0, None)]:
        attempt("acquire", lock.acquire, block, timeout)
        print(lock, states(lock), elsewhere(repr, lock), elsewhere(lock.acquire, False))
    for _ in range(8):
        attempt("release", lock.release)
        print(lock, states(lock))
    attempt("elsewhere", elsewhere, lock.release)
    attempt("keyword", lock.acquire, blocking=True)
    attempt("text", lock.acquire, True, "1")
    attempt("pickle", pickle.dumps, lock)
    attempt("with", lambda: lock.__exit__(None, None, None) or lock)

for kind, value, most in [(0, 1, 1), (1, 0, 5), (2, 1, 1), (1, -1, 1), (-1, 1, 1)]:
    attempt("SemLock", lambda: states(synchronize.SemLock(kind, value, most, ctx=billiard.get_context())))
attempt("many", billiard.Semaphore, -1)
print(billiard.Semaphore(2).get_value(), synchronize.SEM_VALUE_MAX)

for lock in (None, billiard.Lock(), billiard.RLock()):
    condition = billiard.Condition(lock)
    print(condition)
    for call in (condition.wait, condition.notify, condition.notify_all, condition.release):
        attempt("not held", call)
    print(condition.acquire(), condition)
    for timeout in (-1, 0, 0.001):
        attempt("wait", condition.wait, timeout)
    attempt("wait_for", condition.wait_for, lambda: "x", 1)
    attempt("wait_for", condition.wait_for, lambda: "", 0.001)
    attempt("notify", condition.notify)
    attempt("notify_all", condition.notify_all)
    attempt("release", condition.release)
    with condition as got:
        print(got, condition._sleeping_count.get_value(), condition._woken_count.get_value(),
              condition._wait_semaphore.get_value())
    attempt("pickle", pickle.dumps, condition)

event = billiard.Event()
print(event.is_set(), event.wait(0), event.wait(-1), event.wait(0.001))
print(event.set(), event.is_set(), event.wait(), event.clear(), event.is_set())

barrier = billiard.Barrier(2, action=lambda: print("action"), timeout=30)
print(barrier.parties, barrier.n_waiting, barrier.broken)
thread = threading.Thread(target=barrier.wait)
thread.start()
while not barrier.n_waiting:
    time.sleep(0.001)
print(barrier.wait())
thread.join()
attempt("alone", barrier.wait, 0.001)
print(barrier.broken, barrier.n_waiting)
attempt("broken", barrier.wait)
barrier.reset()
print(barrier.broken)
barrier.abort()
print(barrier.broken)
for parties in (1,):
    attempt("few", billiard.Barrier(parties).wait)
for name in ("Condition", "Event"):
    attempt(name, getattr(synchronize, name))
"""

#: What differs: the original says nothing when a context is missing, and a method's full name is told.
_EXPECTED = ("Condition AssertionError: ", "Event AssertionError: ", "keyword TypeError: ")


def test_it_says_the_same(program, original):
    ours, theirs = program(PROGRAM), original(PROGRAM)
    assert ours.stderr == theirs.stderr == ""
    pairs = list(zip(ours.stdout.splitlines(), theirs.stdout.splitlines(), strict=True))
    assert len(pairs) > 150
    for mine, other in pairs:
        alike = any(mine.startswith(start) and other.startswith(start) for start in _EXPECTED)
        assert mine == other or alike
