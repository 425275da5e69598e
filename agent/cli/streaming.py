"""Reads the agent's streams: one JSON value a line, the last of which may be an error."""

from collections.abc import Iterator
from typing import Any

from agent import exits
from agent.cli.progress import WaitNotice
from agent.exits import AgentError
from edge_apps.client import Client, Query


def one_by_one(lines: Iterator[dict[str, Any]], words: str, *, quiet: bool) -> Iterator[Any]:
    """Yield a stream's values; show what is waited for while the next one does not come."""
    while True:
        with WaitNotice(words, quiet=quiet):
            one = next(lines, None)
        if one is None:
            return
        yield one


def lines_of(
    client: Client, path: str, query: Query | None = None, json: Any = None
) -> Iterator[dict[str, Any]]:
    """Yield a stream's values. Raises AgentError for the error that ends it."""
    for value in client.stream(path, query=query, json=json):
        error = value.get("error")
        if isinstance(error, dict):
            status = exits.STATUSES.get(error["code"], exits.NO)
            raise AgentError(error["message"], error.get("hint", ""), status)
        yield value
