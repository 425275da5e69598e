"""Admission carries secrets, and shows none. Its bytes are pinned in ``test_agent_vectors.py``."""

from agent.admission.messages import (
    GUEST_CODEC,
    MEMBER_CODEC,
    RELAY_CODEC,
    Admission,
    Ask,
    Granted,
    TokenMade,
)
from agent.security.key_messages import KeyringOffer

ADMISSION = Admission(b"id", b"secret", b"csr", 1_790_000_000_000, 1.0, "shed")
GRANTED = Granted("barn", b"crt", b"ring", b"reg", ())
OFFER = KeyringOffer(1, "steady", "chacha20-poly1305", 1, ((1, b"secret"),), b"signature")


def test_secrets_are_not_shown() -> None:
    shown = repr(ADMISSION) + repr(GRANTED) + repr(TokenMade("covey1-secret")) + repr(OFFER)
    assert "secret" not in shown.replace("secrets", "")
    assert "ring" not in shown.replace("KeyringOffer", "")
    assert "secret" not in repr(Ask(1, ADMISSION))


def test_no_guest_can_say_what_only_members_may() -> None:
    """The codecs are apart: a guest's frame is never decoded as a member's."""
    assert not GUEST_CODEC.tags & MEMBER_CODEC.tags
    assert not GUEST_CODEC.tags & RELAY_CODEC.tags
