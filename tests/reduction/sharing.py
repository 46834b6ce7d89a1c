"""What the tests of shared descriptors do with them."""

from __future__ import annotations

import os

from billiard.resource_sharer import _resource_sharer

#: How long anything that a test waits for may take.
PATIENCE = 30.0


def read(shared):
    """Fetch a shared file. Returns what is in it."""
    fd = shared.detach()
    try:
        assert not os.get_inheritable(fd)
        return os.read(fd, 100)
    finally:
        os.close(fd)


def service():
    """What serves this process's descriptors at the moment."""
    return _resource_sharer._service
