"""The kinds of the classic messages between a driven pool and its workers, as they are on the wire."""

ACK = 0
READY = 1
TASK = 2
NACK = 3
DEATH = 4
