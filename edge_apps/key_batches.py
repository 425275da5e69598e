"""Many operations on shared keys in few requests (``POST /api/v1/kv/batch``).

Operations are cut into batches that the agent takes; each has an outcome of its own, and none is
atomic. ``base64`` and ``json`` are imported when the first batch is made, as in ``client.py``.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from edge_apps.client import Client

OPERATIONS_MAX = 500
BYTES_MAX = 2 * 1024 * 1024
"""Of one batch; the agent takes twice as much of both."""
EXTRA_WAIT_S = 10.0
"""The agent works on many keys of a batch at once, and on the others behind them."""
PATH = "/api/v1/kv/batch"


def put_of(key: str, value: bytes, **more: Any) -> dict[str, Any]:
    """Return the operation that puts a value; what is None of ``more`` is left out."""
    import base64

    operation: dict[str, Any] = {"op": "put", "key": key}
    try:
        operation["value"] = value.decode()
    except UnicodeDecodeError:
        operation["value_base64"] = base64.b64encode(value).decode()
    return operation | {name: word for name, word in more.items() if word is not None}


def data_of(value: dict[str, Any]) -> bytes:
    """Return the bytes of a value of a result; a typed one as JSON."""
    import base64
    import json

    if "type" in value:
        return json.dumps(value["value"], ensure_ascii=False).encode(errors="replace")
    if "value" in value:
        return str(value["value"]).encode()
    return base64.b64decode(value["value_base64"])


def carry_out(
    client: Client, operations: Iterable[dict[str, Any]], timeout_s: float
) -> Iterator[dict[str, Any]]:
    """Yield what became of each operation, in their order; see ``docs/api.md``.

    Raises ClientError; then what became of the operations behind the last result is not known.
    """
    import json

    for batch in _batches(json.dumps(each).encode() for each in operations):
        answer = client.request(
            "POST",
            PATH,
            query={"timeout": timeout_s},
            body=b'{"operations":[' + b",".join(batch) + b"]}",
            headers={"Content-Type": "application/json"},
            timeout_s=2 * timeout_s + EXTRA_WAIT_S,
        )
        yield from answer.json()["results"]


def _batches(operations: Iterable[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for operation in operations:
        if batch and (len(batch) == OPERATIONS_MAX or size + len(operation) > BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(operation)
        size += len(operation)
    if batch:
        yield batch
