"""What is said on a stream before somebody else's bytes go through it: whither, and whether.

Field order is the format (``gossip/core/wire.py``); new fields go to the end with a default.
"""

from typing import Annotated

import msgspec

from gossip.core.ids import NodeId
from gossip.core.wire import Codec

BYTES_MAX = 64


class RelayAsk(msgspec.Struct, frozen=True, array_like=True, tag=100):
    """Asks to be put through to the target."""

    target: Annotated[NodeId, msgspec.Meta(ge=1)]


class RelayAnswer(msgspec.Struct, frozen=True, array_like=True, tag=101):
    """Whether what follows goes to the target, and comes from it."""

    is_through: bool


RelayMessage = RelayAsk | RelayAnswer
CODEC: Codec[RelayMessage] = Codec(RelayMessage)
