"""Descriptors kept for whoever shows their ticket: who is served, what is said, how long that may take.

Nothing here knows sockets, threads or clocks. Messages and the time come in, messages come out.

A conversation, on a socket that keeps messages apart:

    cloakroom   greeting   a magic number and a nonce
    visitor     claim      a nonce, the ticket, a proof
    cloakroom   verdict    one byte, a proof; then the descriptor

A proof is an HMAC-SHA256 under the key that the processes of one family share, over all that was said so far
and who says it: it is worth nothing in another conversation or in the other direction. The visitor proves
first, so that the cloakroom tells a stranger nothing. Each message has one size, and none is unpickled.
"""

from __future__ import annotations

import hmac
import os
from typing import NamedTuple

from .exceptions import AuthenticationError

#: How many visitors are in conversation at a time. Others wait to be let in.
MOST_VISITORS = 64
#: Seconds that a visitor may take for its claim.
PATIENCE = 20.0
#: Seconds until the next visitor is let in after there was no descriptor left for it.
REST = 0.1

_MAGIC = b"bllrdfd\x01"
_NONCE_SIZE = 32
_TICKET_SIZE = 16
_PROOF_SIZE = 32

GREETING_SIZE = len(_MAGIC) + _NONCE_SIZE
CLAIM_SIZE = _NONCE_SIZE + _TICKET_SIZE + _PROOF_SIZE
VERDICT_SIZE = 1 + _PROOF_SIZE

_GIVEN = b"\x01"
_UNKNOWN = b"\x00"
#: What a visitor is told who does not hold the key: no secret, and nothing that could pass for a verdict.
REFUSAL = b"refused"

GONE = "the descriptor was taken already, or is not shared any more"


def trusts(uid: int, other: int) -> bool:
    """Tell whether a process of user ``uid`` talks to one of user ``other`` at all: its own user and root."""
    return other in (0, uid)


def _prove(key: bytes, who: bytes, said: bytes) -> bytes:
    return hmac.digest(key, who + said, "sha256")


class Answer(NamedTuple):
    """What a visitor is told, and what it is given."""

    message: bytes
    ticket: bytes = b""
    descriptor: int | None = None


class _Visitor(NamedTuple):
    greeting: bytes
    deadline: float


class Cloakroom:
    """The side that keeps descriptors.

    Visitors are known by numbers that the caller chooses. It is not thread-safe.
    """

    def __init__(self) -> None:
        self._kept: dict[bytes, int] = {}
        self._visitors: dict[int, _Visitor] = {}
        self._resting_until = float("-inf")

    def keep(self, descriptor: int) -> bytes:
        """Take a descriptor in.

        Returns:
            Its ticket. Nobody can guess it.
        """
        ticket = os.urandom(_TICKET_SIZE)
        self._kept[ticket] = descriptor
        return ticket

    def take(self, ticket: bytes) -> int | None:
        """Give a descriptor out; ``None`` if there is none for the ticket."""
        return self._kept.pop(ticket, None)

    def clear(self) -> list[int]:
        """Give all descriptors out."""
        left = list(self._kept.values())
        self._kept.clear()
        return left

    def accepts(self, now: float) -> bool:
        """Tell whether another visitor may come in."""
        return len(self._visitors) < MOST_VISITORS and now >= self._resting_until

    def rest(self, now: float) -> None:
        """Let nobody in for a while: there is no descriptor left to let them in with."""
        self._resting_until = now + REST

    def greet(self, visitor: int, now: float) -> bytes:
        """Begin a conversation.

        Returns:
            What to say.
        """
        greeting = _MAGIC + os.urandom(_NONCE_SIZE)
        self._visitors[visitor] = _Visitor(greeting, now + PATIENCE)
        return greeting

    def hear(self, visitor: int, message: bytes, key: bytes) -> Answer:
        """End a conversation with the answer to a claim.

        The descriptor stays here until `take` is called with the ticket: the visitor may fail to receive it.
        """
        greeting = self._visitors.pop(visitor).greeting
        claim, proof = message[:-_PROOF_SIZE], message[-_PROOF_SIZE:]
        if len(message) != CLAIM_SIZE or not hmac.compare_digest(
            proof, _prove(key, b"visitor", greeting + claim)
        ):
            return Answer(REFUSAL)
        ticket = claim[_NONCE_SIZE:]
        descriptor = self._kept.get(ticket)
        verdict = _UNKNOWN if descriptor is None else _GIVEN
        return Answer(verdict + _prove(key, b"cloakroom", greeting + message + verdict), ticket, descriptor)

    def leave(self, visitor: int) -> None:
        """Note that a visitor is gone. One who is not there may leave as well."""
        self._visitors.pop(visitor, None)

    def overdue(self, now: float) -> list[int]:
        """End the conversations that take too long.

        Returns:
            The visitors to show out.
        """
        late = [visitor for visitor, (_, deadline) in self._visitors.items() if deadline <= now]
        for visitor in late:
            del self._visitors[visitor]
        return late

    def next_deadline(self, now: float) -> float | None:
        """When something is due that no message announces; ``None`` for never."""
        due = [self._resting_until] if now < self._resting_until else []
        due.extend(visitor.deadline for visitor in self._visitors.values())
        return min(due, default=None)


class Claim:
    """The side that shows a ticket: one conversation.

    Args:
        ticket: The ticket.
        key: The key of the family.
    """

    def __init__(self, ticket: bytes, key: bytes) -> None:
        self._ticket = ticket
        self._key = key
        self._said = b""

    def answer(self, greeting: bytes) -> bytes:
        """Answer the greeting.

        Returns:
            What to say.

        Raises:
            AuthenticationError: It is none: somebody else is at the address.
        """
        if len(greeting) != GREETING_SIZE or not greeting.startswith(_MAGIC):
            raise AuthenticationError("whoever answers does not share descriptors")
        claim = os.urandom(_NONCE_SIZE) + self._ticket
        claim += _prove(self._key, b"visitor", greeting + claim)
        self._said = greeting + claim
        return claim

    def check(self, verdict: bytes) -> None:
        """Check the verdict. The descriptor follows, if nothing is raised.

        Raises:
            AuthenticationError: The other side does not accept our key, or does not hold it.
            EOFError: There is no descriptor for the ticket.
        """
        if verdict == REFUSAL:
            raise AuthenticationError("digest sent was rejected")
        said, proof = verdict[:1], verdict[1:]
        if not hmac.compare_digest(proof, _prove(self._key, b"cloakroom", self._said + said)):
            raise AuthenticationError("digest received was wrong")
        if said != _GIVEN:
            raise EOFError(GONE)
