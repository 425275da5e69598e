"""Answers that may be long: a list whose items are described and encoded in slices.

Ten thousand readings take a quarter of a second to become JSON; meanwhile nobody would be
answered. See ``agent/loop/slices.py``.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from agent.http.response import Response
from agent.loop.slices import collect

JSON = "application/json"


async def listing(name: str, items: Iterable[Any], **more: Any) -> Response:
    """Answer with ``{**more, name: [items]}``."""
    encoded = await collect(map(msgspec.json.encode, items))
    begins = msgspec.json.encode({**more, name: []})
    assert begins.endswith(b"[]}"), "the list comes last"
    return Response(b"".join((begins[:-2], b",".join(encoded), b"]}")), media_type=JSON)
