"""Packets sealed and opened a second: the envelope with the real keyring, beside the bare cipher.

The bare cipher is what the library needs for the same bytes with one key and one object: the
difference is the price of header, counter, replay window and the look-up of the key.
"""

import functools
import random
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from agent.identity.keyring import CIPHERS, new_keyring, parse_keyring
from bench.report import finish, table
from gossip.core.envelope import Envelope
from gossip.core.ids import CLUSTER_ID_BYTES, new_node_id, next_boot

BODY_BYTES = (64, 512, 1200)
PACKETS = 20_000
ROUNDS = 5
NONCE_BYTES = 12
AAD_BYTES = 50


def _best_per_second(*rounds: Callable[[], object]) -> float:
    """Return packets a second of the quickest round: the one that was disturbed least."""
    seconds = []
    for work in rounds:
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return PACKETS / min(seconds)


def _bare(cipher: ChaCha20Poly1305 | AESGCM, body: bytes) -> tuple[float, float]:
    nonces = [number.to_bytes(NONCE_BYTES) for number in range(PACKETS)]
    aad = bytes(AAD_BYTES)
    sealed = [cipher.encrypt(nonce, body, aad) for nonce in nonces]

    def seal() -> None:
        for nonce in nonces:
            cipher.encrypt(nonce, body, aad)

    def open_all() -> None:
        for nonce, packet in zip(nonces, sealed, strict=True):
            cipher.decrypt(nonce, packet, aad)

    return _best_per_second(*[seal] * ROUNDS), _best_per_second(*[open_all] * ROUNDS)


def _envelope(cipher: str, body: bytes) -> tuple[float, float]:
    rng = random.Random(1)
    cluster_id = rng.randbytes(CLUSTER_ID_BYTES)
    keyring = parse_keyring(new_keyring(cipher), cluster_id)

    def member() -> Envelope:
        return Envelope(cluster_id, new_node_id(rng), next_boot(1, rng), keyring)

    sender = member()
    packets: list[bytes] = []

    def seal() -> None:
        packets[:] = [sender.seal(body, 0) for _ in range(PACKETS)]

    def open_all(receiver: Envelope) -> None:
        for packet in packets:
            receiver.open(packet)

    sealed = _best_per_second(*[seal] * ROUNDS)
    # Each packet opens once: every round needs a receiver that has not seen them.
    fresh = [functools.partial(open_all, member()) for _ in range(ROUNDS)]
    return sealed, _best_per_second(*fresh)


def main() -> None:
    """Measure every cipher with every size."""
    rows: list[list[object]] = []
    figures: dict[str, float] = {}
    for name, cipher in CIPHERS.items():
        for size in BODY_BYTES:
            body = random.Random(size).randbytes(size)
            bare_seal, bare_open = _bare(cipher(bytes(32)), body)
            seal, opened = _envelope(name, body)
            rows.append([f"{name}, {size} B", seal, bare_seal, opened, bare_open])
            figures |= {f"{name}_{size}_seal_per_s": seal, f"{name}_{size}_open_per_s": opened}
    head = ["packets a second", "sealed", "bare cipher", "opened", "bare cipher"]
    table("Datagrams", head, rows)
    finish("seal", {key: round(value) for key, value in figures.items()})


if __name__ == "__main__":
    main()
