"""Admission carries secrets, and shows none. Its bytes are pinned in ``test_agent_vectors.py``."""

import pytest

from agent.admission.messages import (
    GUEST_CODEC,
    MEMBER_CODEC,
    RELAY_CODEC,
    AdmissionRequest,
    Granted,
    KnownPeer,
    Refused,
    RelayedReply,
    RelayedRequest,
    TokenIssued,
)
from agent.keys.messages import KeyringOffer
from gossip.core.errors import Malformed

ADMISSION = AdmissionRequest(b"tokenid8", b"p" * 64, b"csr", 1_790_000_000_000, 1.0, "shed")
GRANTED = Granted("barn", b"crt", b"ring", b"reg", ())
OFFER = KeyringOffer(1, "steady", "chacha20-poly1305", 1, ((1, b"secret"),), b"signature")


def test_secrets_are_not_shown() -> None:
    shown = repr(ADMISSION) + repr(GRANTED) + repr(TokenIssued("covey1-secret")) + repr(OFFER)
    assert "secret" not in shown.replace("secrets", "")
    assert "ring" not in shown.replace("KeyringOffer", "")
    assert "secret" not in repr(RelayedRequest(1, ADMISSION))


def test_no_guest_can_say_what_only_members_may() -> None:
    """The codecs are apart: a guest's frame is never decoded as a member's."""
    assert not GUEST_CODEC.tags & MEMBER_CODEC.tags
    assert not GUEST_CODEC.tags & RELAY_CODEC.tags


@pytest.mark.parametrize(
    "evil",
    [
        Refused(0, "no", "ask again"),
        Refused(300, "no", "ask again"),
        Refused(7, "n" * 1001, ""),
        Granted("x$(id)", b"", b"", b"", ()),
        Granted("barn", b"", b"", b"", (KnownPeer(7, "a\x1b[2J", ()),)),
    ],
)
def test_what_no_honest_member_answers_is_malformed(evil: Refused | Granted) -> None:
    """A device believes nobody yet: no success that is none, no book, no name that is a command."""
    with pytest.raises(Malformed):
        MEMBER_CODEC.decode(MEMBER_CODEC.encode(evil))


@pytest.mark.parametrize("text", ["covey1-x; reboot", "covey1-", "covey1-x\n", "x"])
def test_a_token_is_one_word(text: str) -> None:
    """People copy it to a command line, whoever made it."""
    with pytest.raises(Malformed):
        RELAY_CODEC.decode(RELAY_CODEC.encode(RelayedReply(1, TokenIssued(text))))
