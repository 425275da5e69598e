"""Identities: who a node is, which of its lives this is, and which covey it belongs to.

All three are plain integers or bytes inside the protocols, because that is what goes over
the wire and what compares fast. The functions here give each its one written form.

* A **node id** is 64 random bits, made together with the data directory, kept for ever.
* A **boot** is a 64-bit number that grows with every start of that node. The upper 32 bits
  count starts (persisted); the lower 32 are random, so that two lives that share a count,
  after a restored backup or a cloned card, still differ. A later boot wins over an earlier.
* A **cluster id** is 128 random bits, made once by ``covey init``.
"""

import random

NodeId = int
Boot = int
ClusterId = bytes

NODE_ID_BITS = 64
BOOT_RANDOM_BITS = 32
CLUSTER_ID_BYTES = 16
UINT64_MAX = 2**64 - 1


def new_node_id(rng: random.Random) -> NodeId:
    """Draw a node id; never 0, which means "nobody"."""
    return rng.randrange(1, UINT64_MAX + 1)


def next_boot(starts: int, rng: random.Random) -> Boot:
    """Return the boot of the start numbered ``starts`` (1 for the first)."""
    assert 0 < starts < 2**32, "the count of starts lives in 32 bits"
    return starts << BOOT_RANDOM_BITS | rng.getrandbits(BOOT_RANDOM_BITS)


def format_node_id(node: NodeId) -> str:
    """Write a node id as 16 hexadecimal digits.

    >>> format_node_id(0xC0FFEE)
    '0000000000c0ffee'
    """
    assert 0 <= node <= UINT64_MAX, "node ids are unsigned 64-bit numbers"
    return f"{node:016x}"


def parse_node_id(text: str) -> NodeId:
    """Read what ``format_node_id`` wrote. Raises ValueError for anything else."""
    if len(text) != NODE_ID_BITS // 4:
        raise ValueError(f"a node id has 16 hexadecimal digits, not {len(text)}: {text!r}")
    return int(text, 16)


def format_cluster_id(cluster: ClusterId) -> str:
    """Write a cluster id as 32 hexadecimal digits."""
    assert len(cluster) == CLUSTER_ID_BYTES, "cluster ids have 16 bytes"
    return cluster.hex()
