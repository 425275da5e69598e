"""The sealed datagram: what stands between a socket and every protocol above it.

A covey's agents share a keyring; from a key of it and the header's (sender, boot), the injected
cipher suite derives a key that belongs to one life of one node. Under that key a counter is the
nonce, so no two packets of the whole covey ever share a key and a nonce: within a life the count
only grows, and the next life has another boot. A life may go on twice, from one snapshot of its
machine or its process: so behind each count stands a *salt*, drawn from outside of the process's
memory, by which the nonces of the two differ all the same.

The header is readable by all and authenticated; the cluster id is authenticated too without being
sent, so a packet of another covey does not open even if somebody copied the keyring.

::

    offset  bytes  field
         0      1  magic 0xC0 | format version (1)
         1      4  key id: which key of the keyring
         5      8  sender: node id
        13      8  boot: which life of the sender
        21      5  count: 1 for the first packet of a life, then growing  ┐ together
        26      3  salt: random                                           ┘ the counter
        29      8  incarnation of the sender  ┐
        37      4  epoch of its registry      │
        41      4  mark of its registry       │
        45      n  body                       ├ sealed; additional data = bytes 0..28, cluster id
      45+n     16  authentication tag         ┘ nonce = four zero bytes, counter

All numbers are unsigned and big-endian. The incarnation rides in every packet so that any packet at
all refutes a suspicion (see ``gossip/membership/detection/updates.py``); epoch and mark, so that
any packet shows who is behind, and that a registry has forked (``gossip/registry/lineage.py``);
epoch 0 says nothing. They are sealed because they are nobody else's business. No byte names the
cipher: a key id belongs to one key and a key to one cipher, so there is nothing to negotiate and
nothing that an attacker could downgrade.

Replays die in a sliding window of counts per (sender, boot), as in RFC 4303 section 3.4.3. Only a
packet that opened moves a window or makes one: a stranger who sends garbage leaves no trace here.
"""

import struct
from collections import OrderedDict
from typing import Protocol

import msgspec

from gossip.core.errors import LimitExceeded, Malformed, Replayed, UnknownKey
from gossip.core.ids import CLUSTER_ID_BYTES, Boot, ClusterId, NodeId
from gossip.core.tuning import BODY_BYTES_MAX, ENVELOPE_BYTES, PACKET_BYTES_MAX

MAGIC_AND_VERSION = 0xC1
HEADER = struct.Struct(">BIQQQ")
TOLD = struct.Struct(">QII")
"""What is sealed before the body: incarnation, epoch, mark."""
TAG_BYTES = 16
NONCE_PREFIX = bytes(4)
SALT_BITS = 24
COUNT_MAX = 2**40 - 1
UINT32_MAX = 2**32 - 1
WINDOW_BITS = 1024
WINDOWS_MAX = 8192

assert HEADER.size + TOLD.size + TAG_BYTES == ENVELOPE_BYTES, "the table above is the format"


class Aead(Protocol):
    """Authenticated encryption under one key, with 12-byte nonces and 16-byte tags (RFC 5116)."""

    def encrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        """Return the ciphertext followed by its tag."""

    def decrypt(self, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        """Return the plaintext. Raises ``gossip.core.errors.Forged`` when the tag does not fit."""


class CipherSuite(Protocol):
    """The keyring as the envelope sees it."""

    @property
    def primary(self) -> int:
        """The id of the key to seal with; it may change while the agent runs."""

    def salt(self) -> int:
        """Draw ``SALT_BITS`` bits that a copy of this process would draw differently."""

    def aead(self, key_id: int, sender: NodeId, boot: Boot) -> Aead | None:
        """Return the AEAD of that life of that sender; None for a key that we do not hold.

        The packet that asks may be forged, so whatever is cached here must be bounded.
        """


class Opened(msgspec.Struct, frozen=True, gc=False):
    """A datagram that proved to come from a holder of the keyring, and to be new."""

    sender: NodeId
    boot: Boot
    incarnation: int
    body: bytes
    epoch: int = 0
    mark: int = 0


class ReplayWindow:
    """Which of one life's counters were seen: the highest, and a bit for each of those below it."""

    __slots__ = ("highest", "seen")

    def __init__(self) -> None:
        self.highest = 0
        self.seen = 1

    def is_new(self, counter: int) -> bool:
        """Say whether the counter is neither seen nor too old to tell. Counter 0 never is."""
        age = self.highest - counter
        return age < 0 or (age < WINDOW_BITS and not self.seen >> age & 1)

    def admit(self, counter: int) -> None:
        """Mark the counter as seen; it must be new."""
        assert self.is_new(counter), "the caller asks before it marks"
        advance = counter - self.highest
        if advance <= 0:
            self.seen |= 1 << -advance
            return
        # A jump of more than a window's width leaves nothing worth remembering.
        self.seen = (self.seen << advance if advance < WINDOW_BITS else 0) | 1
        self.seen &= (1 << WINDOW_BITS) - 1
        self.highest = counter


class Envelope:
    """Seals and opens the datagrams of one life of one node."""

    def __init__(self, cluster_id: ClusterId, me: NodeId, boot: Boot, suite: CipherSuite) -> None:
        assert len(cluster_id) == CLUSTER_ID_BYTES, "cluster ids have 16 bytes"
        self._cluster_id = cluster_id
        self._me = me
        self._boot = boot
        self._suite = suite
        self._count = 0
        # Least recently heard first. An evicted life could be replayed once; there must first be
        # that many other lives, each of which held the keyring.
        self._windows: OrderedDict[tuple[NodeId, Boot], ReplayWindow] = OrderedDict()

    def seal(self, body: bytes, incarnation: int, epoch: int = 0, mark: int = 0) -> bytes:
        """Return the packet for this body; every call uses up one count.

        ``epoch`` and ``mark`` name the registry that the sender follows.

        Raises LimitExceeded for a body of more than BODY_BYTES_MAX.
        """
        if len(body) > BODY_BYTES_MAX:
            raise LimitExceeded(
                f"a datagram carries at most {BODY_BYTES_MAX} bytes, not {len(body)}; "
                "nothing was sent: send the rest in another, or over a stream"
            )
        assert self._count < COUNT_MAX, "2**40 packets take decades, and a restart begins anew"
        key_id = self._suite.primary
        aead = self._suite.aead(key_id, self._me, self._boot)
        assert aead is not None, "the keyring holds its own primary key"
        self._count += 1
        counter = self._count << SALT_BITS | self._suite.salt()
        header = HEADER.pack(MAGIC_AND_VERSION, key_id, self._me, self._boot, counter)
        plain = TOLD.pack(incarnation, min(epoch, UINT32_MAX), mark) + body
        return header + aead.encrypt(_nonce(counter), plain, header + self._cluster_id)

    def open(self, packet: bytes) -> Opened:
        """Return what is in the packet, once.

        Raises Malformed (not such a packet at all), Forged (does not open under our keys and our
        cluster id) or Replayed (opened before, too old to tell, or our own come back to us).
        """
        key_id, sender, boot, counter = self._read_header(packet)
        if (sender, boot) == (self._me, self._boot):
            raise Replayed("our own packet came back to us")
        window = self._windows.get((sender, boot)) or ReplayWindow()
        # Asked before the costly part: a flood of one recorded packet costs a lookup each.
        count = counter >> SALT_BITS
        if not window.is_new(count):
            raise Replayed(f"packet {count} was seen before, or {window.highest} is far ahead")
        aead = self._suite.aead(key_id, sender, boot)
        if aead is None:
            raise UnknownKey(f"sealed under key {key_id:08x}, not in our keyring", sender)
        header = packet[: HEADER.size]
        plain = aead.decrypt(_nonce(counter), packet[HEADER.size :], header + self._cluster_id)
        self._admit(sender, boot, window, count)
        incarnation, epoch, mark = TOLD.unpack_from(plain)
        return Opened(sender, boot, incarnation, plain[TOLD.size :], epoch, mark)

    @property
    def windows(self) -> int:
        """How many lives are remembered; at most WINDOWS_MAX."""
        return len(self._windows)

    @staticmethod
    def _read_header(packet: bytes) -> tuple[int, NodeId, Boot, int]:
        if not ENVELOPE_BYTES <= len(packet) <= PACKET_BYTES_MAX:
            raise Malformed(f"a packet has {ENVELOPE_BYTES} to {PACKET_BYTES_MAX} bytes")
        magic, key_id, sender, boot, counter = HEADER.unpack_from(packet)
        if magic != MAGIC_AND_VERSION:
            raise Malformed("not a packet of this format and version")
        if sender == 0 or counter >> SALT_BITS == 0:
            raise Malformed("node ids and counts begin at 1")
        return key_id, sender, boot, counter

    def _admit(self, sender: NodeId, boot: Boot, window: ReplayWindow, count: int) -> None:
        window.admit(count)
        self._windows[sender, boot] = window
        self._windows.move_to_end((sender, boot))
        if len(self._windows) > WINDOWS_MAX:
            self._windows.popitem(last=False)


def _nonce(counter: int) -> bytes:
    return NONCE_PREFIX + counter.to_bytes(8)
