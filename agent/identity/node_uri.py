"""The one name that a node's certificate carries: ``covey://<cluster id>/<node id>``.

In a file of its own because both sides of it need it: what makes certificates, with the X.509
library, and what reads them from OpenSSL on each stream, without.
"""

from gossip.core.errors import Malformed
from gossip.core.ids import (
    CLUSTER_ID_BYTES,
    ClusterId,
    NodeId,
    format_cluster_id,
    format_node_id,
    parse_node_id,
)

SCHEME = "covey://"


def node_uri(cluster_id: ClusterId, node_id: NodeId) -> str:
    """Write the name of a node.

    >>> node_uri(bytes(16), 0xC0FFEE)
    'covey://00000000000000000000000000000000/0000000000c0ffee'
    """
    return f"{SCHEME}{format_cluster_id(cluster_id)}/{format_node_id(node_id)}"


def parse_node_uri(uri: str) -> tuple[ClusterId, NodeId]:
    """Read what ``node_uri`` wrote. Raises Malformed."""
    cluster, _, node = uri.removeprefix(SCHEME).partition("/")
    try:
        names = bytes.fromhex(cluster), parse_node_id(node)
    except ValueError:
        names = b"", 0
    # Only the one written form counts: int() also takes signs, blanks and underscores.
    if len(names[0]) != CLUSTER_ID_BYTES or node_uri(*names) != uri:
        raise Malformed(f"not the name of a node: {uri[:80]!r}")
    return names
