"""Sends orders to the shop.

python producer.py 400
"""

from __future__ import annotations

import sys

from celery.result import ResultSet
from shop import charge


def send(count: int) -> ResultSet:
    """Send so many orders; gives what tells of their ends."""
    return ResultSet([charge.delay(order) for order in range(count)])


if __name__ == "__main__":
    sent = send(int(sys.argv[1]))
    print(f"charged: {len(sent.join(timeout=600))} orders")
