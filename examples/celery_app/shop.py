"""A Celery application: orders are charged, each once, whatever becomes of the processes that do it.

    celery -A shop worker -c 4

``REDIS_URL`` says where Redis is. Nothing here knows which pool the worker has.
"""

from __future__ import annotations

import os
import time

import redis
from celery import Celery

URL = os.environ.get("REDIS_URL", "redis://localhost:6379/0")

app = Celery("shop", broker=URL, backend=URL)
app.conf.update(
    # A task is taken off the queue when it is done, and given back when its process is lost.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


def books() -> redis.Redis:
    """Open the books of the shop, which are in Redis as well."""
    path, _, _ = URL.removeprefix("redis+socket://").partition("?")
    return (
        redis.Redis(unix_socket_path=path) if URL.startswith("redis+socket:") else redis.Redis.from_url(URL)
    )


@app.task(time_limit=10)
def charge(order: int) -> int:
    """Charge an order. It may be begun more than once; the books have it once."""
    with books() as ledger:
        ledger.incr("begun")
        time.sleep(0.05)  # the bank takes its time
        ledger.hsetnx("charged", str(order), os.getpid())
    return order
