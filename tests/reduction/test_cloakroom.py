"""Who is given what, decided without sockets, threads or time."""

from __future__ import annotations

import random

import pytest

from billiard import _cloakroom
from billiard._cloakroom import (
    CLAIM_SIZE,
    GREETING_SIZE,
    MOST_VISITORS,
    PATIENCE,
    REFUSAL,
    REST,
    VERDICT_SIZE,
    Claim,
    Cloakroom,
)
from billiard.exceptions import AuthenticationError

KEY = b"the family's"
VISITOR = 5


@pytest.fixture
def room():
    return Cloakroom()


def converse(room, claim, visitor=VISITOR, key=KEY):
    """Have a whole conversation. Returns the answer, which the visitor has checked."""
    answer = room.hear(visitor, claim.answer(room.greet(visitor, 0.0)), key)
    claim.check(answer.message)
    return answer


@pytest.mark.parametrize("key", [KEY, b"", bytes(1000)])
def test_a_ticket_is_worth_its_descriptor(room, key):
    tickets = [room.keep(descriptor) for descriptor in (10, 20, 30)]
    answer = converse(room, Claim(tickets[1], key), key=key)
    assert (answer.ticket, answer.descriptor) == (tickets[1], 20)


def test_a_descriptor_stays_until_it_has_arrived(room):
    ticket = room.keep(10)
    for _ in range(2):
        assert converse(room, Claim(ticket, KEY)).descriptor == 10
    assert room.take(ticket) == 10
    with pytest.raises(EOFError, match="taken already, or is not shared any more"):
        converse(room, Claim(ticket, KEY))
    assert room.take(ticket) is None


def test_what_is_left_can_be_had_at_once(room):
    tickets = [room.keep(descriptor) for descriptor in (10, 20)]
    assert room.clear() == [10, 20]
    assert [room.take(ticket) for ticket in tickets] == [None, None]
    assert room.clear() == []


def test_messages_have_one_size_each(room):
    claim = Claim(room.keep(10), KEY)
    greeting = room.greet(VISITOR, 0.0)
    message = claim.answer(greeting)
    verdict = room.hear(VISITOR, message, KEY).message
    assert [len(greeting), len(message), len(verdict)] == [GREETING_SIZE, CLAIM_SIZE, VERDICT_SIZE]


def test_no_two_conversations_are_alike(room):
    ticket = room.keep(10)
    greetings = {room.greet(visitor, 0.0) for visitor in range(50)}
    assert len(greetings) == 50
    greeting = greetings.pop()
    assert len({Claim(ticket, KEY).answer(greeting) for _ in range(50)}) == 50


def test_a_visitor_without_the_key_is_refused(room):
    claim = Claim(room.keep(10), b"another's")
    answer = room.hear(VISITOR, claim.answer(room.greet(VISITOR, 0.0)), KEY)
    assert answer == (REFUSAL, b"", None)
    with pytest.raises(AuthenticationError, match="digest sent was rejected"):
        claim.check(answer.message)


def test_a_claim_is_worth_nothing_in_another_conversation(room):
    ticket = room.keep(10)
    overheard = Claim(ticket, KEY).answer(room.greet(1, 0.0))
    room.greet(2, 0.0)
    assert room.hear(2, overheard, KEY) == (REFUSAL, b"", None)
    assert room.hear(1, overheard, KEY).descriptor == 10


def flipped(message, bit):
    changed = bytearray(message)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_any_other_bit_in_a_claim_is_refused(room):
    ticket = room.keep(10)
    for bit in range(8 * CLAIM_SIZE):
        message = flipped(Claim(ticket, KEY).answer(room.greet(VISITOR, 0.0)), bit)
        assert room.hear(VISITOR, message, KEY) == (REFUSAL, b"", None)


def test_any_other_bit_in_a_verdict_is_noticed(room):
    ticket = room.keep(10)
    for bit in range(8 * VERDICT_SIZE):
        claim = Claim(ticket, KEY)
        answer = room.hear(VISITOR, claim.answer(room.greet(VISITOR, 0.0)), KEY)
        with pytest.raises(AuthenticationError, match="digest received was wrong"):
            claim.check(flipped(answer.message, bit))


def test_a_claim_of_any_other_length_is_refused(room):
    ticket = room.keep(10)
    for length in (*range(CLAIM_SIZE), CLAIM_SIZE + 1, 10 * CLAIM_SIZE):
        message = Claim(ticket, KEY).answer(room.greet(VISITOR, 0.0))
        message = message[:length].ljust(length, b"x")
        assert room.hear(VISITOR, message, KEY) == (REFUSAL, b"", None)


def test_a_ticket_of_another_size_is_refused_to_whoever_proves_it(room):
    room.keep(10)
    for size in (0, 15, 17, 1000):
        claim = Claim(bytes(size), KEY)
        message = claim.answer(room.greet(VISITOR, 0.0))
        assert room.hear(VISITOR, message, KEY) == (REFUSAL, b"", None)


def test_garbage_is_refused(room):
    room.keep(10)
    source = random.Random(1)
    for _ in range(1000):
        room.greet(VISITOR, 0.0)
        message = source.randbytes(source.choice([0, 1, CLAIM_SIZE, CLAIM_SIZE + 1]))
        assert room.hear(VISITOR, message, KEY) == (REFUSAL, b"", None)


@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"x",
        b"#CHALLENGE#" + bytes(20),
        bytes(GREETING_SIZE),
        _cloakroom._MAGIC,
        _cloakroom._MAGIC.ljust(GREETING_SIZE - 1, b"x"),
        _cloakroom._MAGIC.ljust(GREETING_SIZE + 1, b"x"),
    ],
)
def test_whoever_greets_otherwise_is_told_nothing(greeting):
    with pytest.raises(AuthenticationError, match="does not share descriptors"):
        Claim(bytes(16), KEY).answer(greeting)


@pytest.mark.parametrize("verdict", [b"", b"\x01", b"\x01" + bytes(32), bytes(33), bytes(34), b"refuse"])
def test_a_verdict_without_proof_is_not_believed(room, verdict):
    claim = Claim(bytes(16), KEY)
    claim.answer(room.greet(VISITOR, 0.0))
    with pytest.raises(AuthenticationError, match="digest received was wrong"):
        claim.check(verdict)


def test_an_impostor_cannot_answer(room):
    """Somebody at the address who does not hold the key, and lets everybody in."""
    claim = Claim(room.keep(10), KEY)
    message = claim.answer(room.greet(VISITOR, 0.0))
    verdict = b"\x01" + _cloakroom._prove(b"a guess", b"cloakroom", message)
    with pytest.raises(AuthenticationError, match="digest received was wrong"):
        claim.check(verdict)


def test_visitors_who_say_nothing_are_shown_out(room):
    assert room.next_deadline(0.0) is None
    room.greet(1, 0.0)
    room.greet(2, 1.0)
    room.greet(3, 2.0)
    assert room.next_deadline(2.0) == PATIENCE
    assert room.overdue(PATIENCE - 0.1) == []
    room.leave(2)
    assert room.overdue(PATIENCE + 1.5) == [1]
    assert room.next_deadline(PATIENCE + 1.5) == PATIENCE + 2
    room.hear(3, b"", KEY)
    assert room.next_deadline(PATIENCE + 1.5) is None
    assert room.overdue(10 * PATIENCE) == []


def test_visitors_may_leave_twice(room):
    room.greet(1, 0.0)
    room.leave(1)
    room.leave(1)
    assert room.next_deadline(0.0) is None


def test_only_so_many_are_let_in(room):
    for visitor in range(MOST_VISITORS):
        assert room.accepts(0.0)
        room.greet(visitor, 0.0)
    assert not room.accepts(0.0)
    room.leave(7)
    assert room.accepts(0.0)


def test_nobody_is_let_in_for_a_while_when_descriptors_are_short(room):
    room.greet(1, 0.0)
    room.rest(10.0)
    assert not room.accepts(10.0)
    assert room.next_deadline(10.0) == 10.0 + REST
    assert room.accepts(10.0 + REST)
    assert room.next_deadline(10.0 + REST) == PATIENCE


def test_one_trusts_oneself_and_root():
    trusted = [(uid, other) for uid in (0, 1, 2) for other in (0, 1, 2) if _cloakroom.trusts(uid, other)]
    assert trusted == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 2)]


def test_random_histories(room):
    """Against a naive model: what is kept, who is in, and for how long."""
    source = random.Random(2)
    kept, inside, now, given = {}, {}, 0.0, 0
    for number in range(20_000):
        now += source.expovariate(1)
        event = source.randrange(6)
        if event == 0:
            kept[room.keep(number)] = number
        elif event == 1 and room.accepts(now):
            inside[number] = (room.greet(number, now), now + PATIENCE)
        elif event in (2, 3) and inside:
            visitor = source.choice(list(inside))
            greeting, _ = inside.pop(visitor)
            ticket = source.choice([*kept, bytes(16)])
            claim = Claim(ticket, source.choice([KEY, KEY, b"wrong"]))
            answer = room.hear(visitor, claim.answer(greeting), KEY)
            expected = kept.get(ticket) if claim._key == KEY else None
            assert answer.descriptor == expected
            if expected is not None:
                claim.check(answer.message)
                assert room.take(answer.ticket) == kept.pop(ticket)
                given += 1
        elif event == 4:
            late = {visitor for visitor, (_, deadline) in inside.items() if deadline <= now}
            assert set(room.overdue(now)) == late
            inside = {visitor: data for visitor, data in inside.items() if visitor not in late}
        elif event == 5 and source.random() < 0.01:
            room.rest(now)
        assert len(inside) <= MOST_VISITORS
        due = room.next_deadline(now)
        if inside:
            assert due <= min(deadline for _, deadline in inside.values())
        elif due is not None:
            assert now < due <= now + REST
    assert given > 1000
    assert sorted(room.clear()) == sorted(kept.values())
