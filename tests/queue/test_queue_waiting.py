"""Waiting for queues: with others, interrupted, and by processes that are killed."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
import time
from queue import Empty

import pytest
import queuework

import billiard

KILLS = 40


def readable(fd, timeout=0.0):
    return bool(select.select([fd], [], [], timeout)[0])


def test_the_descriptor_is_readable_exactly_while_there_is_an_object(queue):
    queue.put("before anybody asked")
    fd = queue.fileno()
    assert queue.fileno() == fd
    assert readable(fd)
    for _ in range(3):
        queue.get()
        assert not readable(fd)
        queue.put(1)
        queue.put(2)
        assert readable(fd)
        queue.get()
        assert readable(fd)


def test_other_processes_ring(ctx, start):
    queue = ctx.Queue()
    fd = queue.fileno()
    start(queuework.put_all, queue, [1, 2])
    assert readable(fd, 60)
    assert queue.get() == 1


def test_the_reader_of_the_original_can_be_waited_for(queue):
    assert not queue._reader.poll()
    assert not queue._reader.poll(0.01)
    threading.Timer(0.05, queue.put, [1]).start()
    assert queue._reader.poll(60)
    assert queue._reader.poll()
    assert queue._reader.fileno() == queue.fileno()


def test_an_event_loop_waits_for_it(queue):
    async def main():
        loop = asyncio.get_running_loop()
        got = loop.create_future()

        def look():
            try:
                got.set_result(queue.get_nowait())
            except Empty:
                return

        loop.add_reader(queue.fileno(), look)
        threading.Timer(0.05, queue.put, ["ding"]).start()
        assert await asyncio.wait_for(got, 60) == "ding"
        loop.remove_reader(queue.fileno())

    asyncio.run(main())


class Alarm(Exception):
    """What the handler raises."""


@pytest.fixture
def alarm():
    """Have an exception raised in 50 ms."""

    def handler(*_):
        raise Alarm

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_a_signal_interrupts_get(queue):
    with pytest.raises(Alarm):
        queue.get()
    queue.put(1)
    assert queue.get() == 1


@pytest.mark.usefixtures("leak_census", "alarm")
def test_a_signal_interrupts_put():
    queue = billiard.Queue(1)
    queue.put(1)
    with pytest.raises(Alarm):
        queue.put(2)
    assert queue.get() == 1


@pytest.mark.usefixtures("leak_census", "alarm")
def test_a_signal_interrupts_join():
    queue = billiard.JoinableQueue()
    queue.put(1)
    with pytest.raises(Alarm):
        queue.join()


def test_a_handler_that_returns_does_not_end_the_wait(queue):
    before = signal.signal(signal.SIGALRM, lambda *_: queue.put("from the handler"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert queue.get(timeout=60) == "from the handler"
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_waiting_thread_lets_others_run_and_does_not_wake_up(queue):
    waiting = threading.Thread(target=queue.get)
    waiting.start()
    time.sleep(0.3)  # the adaptive spinning ends

    def wake_ups():
        with open(f"/proc/self/task/{waiting.native_id}/status") as status:
            return [line for line in status if line.startswith("voluntary")]

    before = wake_ups()
    time.sleep(0.5)
    assert wake_ups() == before
    queue.put(1)
    waiting.join()


def test_killing_those_who_wait_keeps_nothing_from_the_others(ctx, start):
    queue, results = ctx.Queue(), ctx.Queue()
    survivor = start(queuework.echo, queue, results)
    for number in range(KILLS):
        victim = start(queuework.echo, queue, results)
        if number % 2:
            time.sleep(0.002)
        queue.put(number)
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
    queue.put("end")
    got = []
    while "end" not in got:
        got.append(results.get(timeout=60))
    assert survivor.is_alive()
    assert len(set(got)) == len(got), "something was got twice"


def test_forks_by_other_means_use_it_too(queue):
    queue.put(0)
    pid = os.fork()
    if not pid:
        queue.put(os.getppid())
        os._exit(0)
    os.waitpid(pid, 0)
    assert [queue.get(timeout=60), queue.get(timeout=60)] == [0, os.getpid()]


@pytest.mark.usefixtures("leak_census")
def test_a_fork_in_the_middle_of_everything():
    queue = billiard.Queue()
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            queue.put((1, "x"))
            queue.get()

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    context = billiard.get_context("fork")
    results = context.Queue()
    for number in range(50):
        child = context.Process(target=queuework.put_all, args=(results, [number]))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        child.close()
    stop.set()
    for thread in threads:
        thread.join()
    assert results.get_many() == list(range(50))
