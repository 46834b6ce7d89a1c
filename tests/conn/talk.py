"""What the processes of these tests do with connections, where every start method can import it."""

from __future__ import annotations

#: How long anything that a test waits for may take.
PATIENCE = 30.0


def echo(conn):
    """Send everything back, good-bye last: a forked child holds both ends, so its stream has no end."""
    thing = None
    while thing != "good-bye":
        thing = conn.recv()
        conn.send(thing)


def echo_bytes(conn):
    said = None
    while said != b"good-bye":
        said = conn.recv_bytes()
        conn.send_bytes(said)


def say(conn, *things):
    for thing in things:
        conn.send(thing)
    conn.close()


def forward(reader, writer):
    """Send what is received through another connection that was received as well."""
    target = reader.recv()
    target.send(("through", reader.readable, writer.writable, target.writable))
    target.close()
    writer.send("done")


def send_array(connection, count):
    import numpy as np  # noqa: PLC0415 - most of those who talk need none

    connection.send(np.arange(count))
    connection.close()
