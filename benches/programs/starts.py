"""Starts and joins processes, one after the other; prints how long each took, in milliseconds.

    python starts.py PACKAGE METHOD STARTS

A program of its own, since a child that is started afresh imports the main module: it has to be small, or its
import would be what is measured. Prints ``null`` where there is no such start method.
"""

import importlib
import json
import sys
import time

WARM_UP = 2
"""Starts that do not count: they compile, start servers and fill caches."""


def nothing():
    pass


def lives(context, starts):
    for number in range(WARM_UP + starts):
        begin = time.perf_counter()
        process = context.Process(target=nothing)
        process.start()
        process.join()
        taken = (time.perf_counter() - begin) * 1e3
        if process.exitcode:
            sys.exit(f"a child ended with {process.exitcode}")
        if number >= WARM_UP:
            yield taken


def main(package, method, starts):
    try:
        context = importlib.import_module(package).get_context(method)
    except ValueError:
        return None
    if method == "forkserver":
        context.set_forkserver_preload(["__main__", package])
    return list(lives(context, starts))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
