"""Sends jobs through a forkserver pool of four whose workers live for one job each.

    python recycles.py PACKAGE JOBS

A program of its own, for the same reason as ``starts.py``. Prints the jobs per second and how many of them
did not come back with their result, or ``null`` where there is no forkserver.
"""

import importlib
import json
import sys
import time

PATIENCE = 60.0
"""Seconds after which a job that has not come back counts as lost."""


def double(number):
    return 2 * number


def main(package, jobs):
    try:
        context = importlib.import_module(package).get_context("forkserver")
    except ValueError:
        return None
    context.set_forkserver_preload(["__main__", f"{package}.pool"])
    lost = 0
    with context.Pool(4, maxtasksperchild=1) as pool:
        # The server is up, and everything is compiled.
        pool.apply(double, (1,))
        begin = time.perf_counter()
        results = [pool.apply_async(double, (number,)) for number in range(jobs)]
        for number, result in enumerate(results):
            try:
                lost += result.get(PATIENCE) != 2 * number
            except Exception:
                # Nobody killed anything: whatever the error says, it is wrong.
                lost += 1
        taken = time.perf_counter() - begin
    return {"rate": jobs / taken, "lost": float(lost)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
