"""Programs that do the same with the original's queues and with ours."""

from __future__ import annotations

import pytest

PROGRAMS = {
    "bounds": """
        import billiard, queue
        q = billiard.Queue(2)
        print(q._maxsize, billiard.Queue()._maxsize, billiard.Queue(-3)._maxsize)
        q.put(1); q.put(2)
        for put in (lambda: q.put(3, False), lambda: q.put(3, True, 0.01), lambda: q.put_nowait(3)):
            try:
                put()
            except queue.Full as error:
                print(type(error), error.args)
        print(q.qsize(), q.full(), q.get(), q.get(), q.qsize(), q.full())
    """,
    "empty": """
        import billiard, queue
        q = billiard.Queue()
        for get in (lambda: q.get(False), lambda: q.get(True, 0.01), lambda: q.get(timeout=-1), q.get_nowait):
            try:
                get()
            except queue.Empty as error:
                print(type(error), error.args)
        print(q.qsize(), q.empty())
    """,
    "tasks": """
        import billiard
        q = billiard.JoinableQueue()
        q.put(1); q.put(2)
        q.get(); q.task_done(); q.get(); q.task_done()
        q.join()
        try:
            q.task_done()
        except ValueError as error:
            print(error)
    """,
    "inheritance": """
        import billiard, pickle
        for q in (billiard.Queue(), billiard.JoinableQueue()):
            try:
                pickle.dumps(q)
            except RuntimeError as error:
                print(error)
    """,
    "order": """
        import billiard
        def child(q):
            for n in range(1000):
                q.put((n, str(n), {n}))
        q = billiard.Queue()
        p = billiard.Process(target=child, args=(q,))
        p.start()
        print([q.get() for _ in range(1000)])
        p.join()
        print(p.exitcode, q.empty())
    """,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_original_says_the_same(name, program, original):
    ours, theirs = program(PROGRAMS[name]), original(PROGRAMS[name])
    assert (ours.stdout, ours.returncode, ours.stderr) == (theirs.stdout, theirs.returncode, "")
    assert ours.stdout
