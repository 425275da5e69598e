"""Hostile bytes: what becomes of a good message in bad hands.

Two ways to spoil it. Blindly: cut it short, flip a bit, one after the other. And with knowledge of
the format: take the message apart, put values where they hurt (the ends of every range, wrong
types, lengths of gigabytes with nothing behind them, nesting without end, keys twice, names that
are no names, addresses at which nobody may be) and put it together again. The second kind gets
past the decoder often enough to reach what lies behind it.

All chances come from the generator that is handed in, so an input is decided by its seed.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

INTEGERS = (
    0, 1, -1, 2, 127, 128, 255, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**33,
    2**53, 2**62, 2**62 + 1, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1, -(2**31), -(2**63),
)  # fmt: skip
FLOATS = (0.0, -0.0, 0.5, -1.0, 1e-308, 1e308, float("inf"), float("-inf"), float("nan"))
HOSTS = (
    "0.0.0.0", "0.0.0.1", "255.255.255.255", "224.0.0.251", "239.1.2.3", "240.0.0.1",
    "169.254.1.1", "127.0.0.1", "10.0.0.1", "10.0.0.255", "10.0.0.77", "192.0.2.7", "::", "::1",
    "fe80::1", "fe80::1%eth0", "fe80::1%\x00", "fe80::1%ä", "fe80::1%" + "z" * 56, "ff02::fb",
    "ff02::1%eth0", "::ffff:224.0.0.1", "::ffff:255.255.255.255", "::ffff:0.0.0.0",
    "::ffff:10.0.0.1", "2001:db8::7", "example.org", "localhost", "", " ", "10.0.0.1\x00",
    "010.0.0.1", "10.1", "1" * 400,
)  # fmt: skip
TEXTS = (
    "", " ", "a", "\x00", "\x1b[2J", "a\nb", "\u202egpj", "größe", "\U0010ffff", "é" * 64,
    "x" * 63, "x" * 64, "x" * 65, "x" * 513, "x" * 5000, "..", "../../etc/passwd", "%s%n", "{0}",
    "-1", "NaN", "alive", "dead", "asleep", "left", "steady", "aes-256-gcm",
)  # fmt: skip
BLOBS = (b"", b"\x00", b"\xff" * 16, bytes(44), bytes(range(64)), b"x" * 513, b"\xc1" * 1200)
RAW = (
    b"\xdd\xff\xff\xff\xff",  # an array of 2**32 - 1 items, none of which follows
    b"\xdf\xff\xff\xff\xff",  # such a map
    b"\xc6\xff\xff\xff\xff",  # such bytes
    b"\xdb\xff\xff\xff\xff",  # such a text
    b"\xdc\x40\x00" + b"\x01" * 16_384,
    b"\x91" * 40 + b"\x90",
    b"\x91" * 3000 + b"\x90",
    b"\x81\xa1k" * 1500 + b"\xc0",
    b"\x82\xa1k\xa1a\xa1k\xa1b",  # one key, twice
    b"\x82\x01\xa1a\x01\xa1b",
    b"\xa3\xed\xa0\x80",  # a lone surrogate
    b"\xa2\xc3\x28",  # not UTF-8
    b"\xc1",  # no type at all
    b"\xd4\x05\x00",  # an extension
    b"\xd6\xff\x00\x00\x00\x01",  # a timestamp
    b"\xc0",
    b"\xc3",
    b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
)
PORTS = (0, 1, 53, 7747, 65_535, 65_536, 2**32, -1)

MUTATIONS_MAX = 4


def truncations(data: bytes) -> Iterator[bytes]:
    """Yield every beginning of the data that is not all of it."""
    return (data[:length] for length in range(len(data)))


def bit_flips(data: bytes) -> Iterator[bytes]:
    """Yield the data with each of its bits turned."""
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


class Mutator:
    """Spoils messages; ``likely`` are numbers that mean something to whoever is attacked."""

    def __init__(self, rng: random.Random, likely: tuple[int, ...] = ()) -> None:
        self.rng = rng
        self.likely = likely

    def spoil(self, data: bytes) -> bytes:
        """Return some other bytes, by one of the ways."""
        way = self.rng.random()
        if way < 0.1:
            return self._blindly(data)
        tree = self.mutate(msgspec.msgpack.decode(data, strict=False))
        return msgspec.msgpack.encode(tree)

    def mutate(self, tree: Any) -> Any:
        """Return a copy with one to four parts spoilt, or none: a lie may be well-formed."""
        for _ in range(self.rng.randrange(MUTATIONS_MAX + 1)):
            tree = self._mutate_somewhere(tree)
        return tree

    def _blindly(self, data: bytes) -> bytes:
        rng = self.rng
        match rng.randrange(4):
            case 0:
                return data[: rng.randrange(len(data) + 1)]
            case 1:
                return rng.randbytes(rng.randrange(1, 200))
            case 2:
                return data + rng.choice([b"\xc0", data, b"\xc1", rng.randbytes(5)])
        spoilt = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            spoilt[rng.randrange(len(spoilt))] = rng.choice([0, 0x7F, 0x80, 0xC1, 0xDC, 0xDD, 0xFF])
        return bytes(spoilt)

    def _mutate_somewhere(self, tree: Any) -> Any:
        """Walk down to a part, with an even chance at each step to stop, and change that one."""
        rng = self.rng
        if isinstance(tree, list) and tree and rng.random() < 0.85:
            # The tag comes first; without it the message is nobody's, so it is rarely touched.
            first = 0 if len(tree) == 1 or rng.random() < 0.05 else 1
            at = rng.randrange(first, len(tree))
            return [*tree[:at], self._mutate_somewhere(tree[at]), *tree[at + 1 :]]
        if isinstance(tree, dict) and tree and rng.random() < 0.6:
            key = rng.choice(list(tree))
            return tree | {key: self._mutate_somewhere(tree[key])}
        return self._another(tree)

    def _another(self, part: Any) -> Any:
        """Return what stands in the place of a part: mostly of its kind, so that it decodes."""
        if self.rng.random() < 0.15:
            kinds: tuple[Callable[[], Any], ...]
            kinds = (self._integer, self._text, self._float, self._raw)
            return self.rng.choice(kinds)()
        match part:
            case bool():
                return not part
            case int():
                return self._integer(part)
            case float():
                return self._float()
            case str():
                return self._text()
            case bytes():
                return self._bytes(part)
            case list():
                return self._list(part)
            case dict():
                return self._dict(part)
        return self._integer()

    def _integer(self, near: int = 0) -> int:
        rng = self.rng
        if self.likely and rng.random() < 0.5:
            return rng.choice(self.likely)
        if rng.random() < 0.3:
            return max(-(2**63), min(2**64 - 1, near + rng.choice([-1, 1, 2**16, 2**31, 2**32])))
        return rng.choice(INTEGERS)

    def _float(self) -> float:
        return self.rng.choice(FLOATS)

    def _text(self) -> str:
        return self.rng.choice(HOSTS if self.rng.random() < 0.4 else TEXTS)

    def _raw(self) -> msgspec.Raw:
        return msgspec.Raw(self.rng.choice(RAW))

    def _bytes(self, part: bytes) -> bytes:
        if part and self.rng.random() < 0.5:
            return self.rng.randbytes(len(part))
        return self.rng.choice(BLOBS)

    def _list(self, part: list[Any]) -> Any:
        rng = self.rng
        match rng.randrange(6):
            case 0:
                return []
            case 1:
                return part[:-1]
            case 2:
                return part + part[:1] * rng.choice([1, 8, 300])
            case 3:
                return [[rng.choice(HOSTS), rng.choice(PORTS)] for _ in range(rng.randrange(9))]
            case 4:
                return [*part, self._integer()]
        return rng.sample(part, len(part))

    def _dict(self, part: dict[Any, Any]) -> Any:
        rng = self.rng
        match rng.randrange(4):
            case 0:
                return {}
            case 1:
                return {str(n): self._text() for n in range(rng.choice([1, 32, 33, 257]))}
            case 2:
                return part | {self._text(): self._text()}
        return self._raw()
