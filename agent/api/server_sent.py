"""Server-sent events: a stream as browsers read it, which go on by themselves after a break.

The same values as in a stream of lines (``ndjson.py``). What has a ``token`` gives it as the id of
its event: a browser sends the last one back as ``Last-Event-ID`` when it connects again.
"""

import json
from typing import Any

MEDIA_TYPE = "text/event-stream"


def event_of(value: Any) -> bytes:
    """Return a value as one event; its kind is the event's name, or ``error``."""
    kind = value.get("kind", "error")
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    name = f"id: {value['token']}\n" if "token" in value else ""
    return f"event: {kind}\n{name}data: {data}\n\n".encode()
