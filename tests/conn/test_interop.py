"""Peers of other packages and other versions, in both roles."""

from __future__ import annotations

import hashlib
import hmac
import os

import pytest

from billiard import connection
from billiard.connection import Client, Listener, answer_challenge, deliver_challenge
from billiard.exceptions import AuthenticationError

KEY = b"shared"
FAMILIES = ["AF_UNIX", "AF_INET"]
#: None; one byte; more than what goes out together with its length.
SIZES = [0, 1, 16 * 1024 + 1]
LARGE = 70_000_000
THINGS = [None, "text", list(range(5_000)), b"x" * 200_000]


def talk(conn, sizes=()):
    with conn:
        for size in [*SIZES, *sizes]:
            message = os.urandom(1024) * (size // 1024) + bytes(size % 1024)
            conn.send_bytes(message)
            assert conn.recv_bytes() == message
        for thing in THINGS:
            conn.send_bytes(b"object")
            conn.send(thing)
            assert conn.recv() == thing
        conn.send_bytes(b"good-bye")
        assert conn.recv_bytes() == b"good-bye"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("key", [None, KEY])
def test_our_client_with_their_listener(peer, family, key):
    peer.ask("listen", family, key)
    talk(Client(peer.read(), authkey=key), [LARGE] if key and family == "AF_UNIX" else [])
    assert peer.outcome() == "done"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("key", [None, KEY])
def test_their_client_with_our_listener(peer, family, key):
    with Listener(family=family, authkey=key) as listener:
        peer.ask("connect", listener.address, key)
        talk(listener.accept(), [LARGE] if key and family == "AF_INET" else [])
    assert peer.outcome() == "done"


@pytest.mark.parametrize("family", FAMILIES)
def test_another_key_at_their_listener(peer, family):
    peer.ask("listen", family, b"other")
    with pytest.raises(AuthenticationError, match="rejected"):
        Client(peer.read(), authkey=KEY)
    assert peer.outcome() == "AuthenticationError"


@pytest.mark.parametrize("family", FAMILIES)
def test_their_client_with_another_key(peer, family):
    with Listener(family=family, authkey=KEY) as listener:
        peer.ask("connect", listener.address, b"other")
        with pytest.raises(AuthenticationError, match="wrong"):
            listener.accept()
        assert peer.outcome() == "AuthenticationError"
        # It goes on with whoever does hold the key.
        peer.ask("connect", listener.address, KEY)
        talk(listener.accept())
    assert peer.outcome() == "done"


def test_where_md5_is_switched_off_only_those_who_know_better_are_let_in(peer, monkeypatch):
    monkeypatch.setattr(connection, "ACCEPT_MD5", False)
    with Listener(authkey=KEY) as listener:
        peer.ask("connect", listener.address, KEY)
        if peer.knows_only_md5:
            with pytest.raises(AuthenticationError, match="MD5"):
                listener.accept()
        else:
            talk(listener.accept())
    assert (peer.outcome() == "done") != peer.knows_only_md5
    peer.ask("listen", "AF_UNIX", KEY)
    if peer.knows_only_md5:
        with pytest.raises(AuthenticationError, match="MD5"):
            Client(peer.read(), authkey=KEY)
    else:
        talk(Client(peer.read(), authkey=KEY))
    assert (peer.outcome() == "done") != peer.knows_only_md5


class Script:
    """A connection on which the other side says what was written before, computed from what it heard."""

    def __init__(self, *says):
        self._says = list(says)
        self.heard = []

    def send_bytes(self, message):
        self.heard.append(bytes(message))

    def recv_bytes(self, maxlength=None):
        assert maxlength == 256
        say = self._says.pop(0)
        return say(self.heard[-1]) if callable(say) else say


def modern(name):
    """How Python 3.12 and later answer: the digest's name, and all of the challenge under the key."""

    def answer(message):
        covered = message.removeprefix(b"#CHALLENGE#")
        return b"{%s}" % name.encode() + hmac.new(KEY, covered, name).digest()

    return answer


def old(message):
    return hmac.new(KEY, message.removeprefix(b"#CHALLENGE#"), "md5").digest()


@pytest.mark.parametrize("name", ["md5", "sha256", "sha384", "sha3_256", "sha3_384"])
def test_every_digest_of_later_pythons_is_known(name):
    them = Script(modern(name))
    deliver_challenge(them, KEY)
    assert them.heard[0].startswith(b"#CHALLENGE#{sha256}")
    assert len(them.heard[0]) == 11 + 8 + 40
    assert them.heard[1] == b"#WELCOME#"
    challenge = b"#CHALLENGE#{%s}" % name.encode() + os.urandom(40)
    them = Script(challenge, b"#WELCOME#")
    answer_challenge(them, KEY)
    assert them.heard == [modern(name)(challenge)]


def test_old_peers_are_answered_as_they_expect():
    them = Script(old)
    deliver_challenge(them, KEY)
    assert them.heard[-1] == b"#WELCOME#"
    challenge = b"#CHALLENGE#" + os.urandom(20)
    them = Script(challenge, b"#WELCOME#")
    answer_challenge(them, KEY)
    assert them.heard == [old(challenge)]


def test_old_peers_are_refused_where_md5_is_switched_off(monkeypatch):
    monkeypatch.setattr(connection, "ACCEPT_MD5", False)
    for says in (old, modern("md5")):
        them = Script(says)
        with pytest.raises(AuthenticationError, match="MD5"):
            deliver_challenge(them, KEY)
        assert them.heard[-1] == b"#FAILURE#"
    them = Script(b"#CHALLENGE#" + bytes(20))
    with pytest.raises(AuthenticationError, match="MD5"):
        answer_challenge(them, KEY)
    assert them.heard == []
    deliver_challenge(Script(modern("sha256")), KEY)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"x",
        b"{sha256}",
        b"{md4}" + bytes(16),
        b"{sha256" + bytes(32),
        bytes(16),
        hashlib.sha256(b"").digest(),
    ],
)
def test_wrong_answers_are_refused(answer):
    them = Script(answer)
    with pytest.raises(AuthenticationError):
        deliver_challenge(them, KEY)
    assert them.heard[-1] == b"#FAILURE#"


@pytest.mark.parametrize(
    "challenge",
    [b"", b"hello", b"#CHALLENGE#", b"#CHALLENGE#short", b"#CHALLENGE#{md4}" + bytes(40), b"#WELCOME#"],
)
def test_what_is_no_challenge_is_not_answered(challenge):
    them = Script(challenge)
    with pytest.raises(AuthenticationError):
        answer_challenge(them, KEY)
    assert them.heard == []


def test_a_refusal_is_told():
    with pytest.raises(AuthenticationError, match="digest sent was rejected"):
        answer_challenge(Script(b"#CHALLENGE#{sha256}" + bytes(40), b"#FAILURE#"), KEY)


@pytest.mark.parametrize("use", [answer_challenge, deliver_challenge])
def test_keys_are_bytes(use):
    with pytest.raises(TypeError, match="byte string"):
        use(Script(b""), "text")


def test_challenges_are_never_the_same():
    seen = set()
    for _ in range(100):
        them = Script(modern("sha256"))
        deliver_challenge(them, KEY)
        seen.add(them.heard[0])
    assert len(seen) == 100
