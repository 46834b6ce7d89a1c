"""Children are started while other threads of the program are in the middle of anything.

``BILLIARD_CHAOS=17`` makes it a thousand starts for each start method.
"""

from __future__ import annotations

import subprocess

import pytest
from hostilework import CHAOS, METHODS, PATIENCE, Tree


@pytest.mark.parametrize("method", METHODS)
def test_children_start_beside_threads_that_keep_everything_busy(tmp_path, method):
    starts = (20 if method == "spawn" else 60) * CHAOS
    with Tree(tmp_path, "hammer", method, starts, stderr=subprocess.PIPE) as tree:
        said, complaints = tree.program.communicate(timeout=starts * PATIENCE)
        assert (said, complaints) == ("over\n", "")
        tree.ends()
