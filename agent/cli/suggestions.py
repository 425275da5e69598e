"""Asks the agent what was probably meant, when there is nothing of the name that was typed.

The agent itself suggests members, apps and facts. Keys are spread over the covey: looking for one
that is nearly called so costs a question to all, and is done for a person only.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from agent.cli.progress import somebody_watches
from agent.cli.session import Session
from agent.text.suggestions import CANDIDATES_MAX, closest, did_you_mean
from edge_apps.client import ApiError, ClientError, Query

TIMEOUT_S = 1.0
GLOB_CHARACTERS = frozenset("*?[")


@contextmanager
def suggesting_keys(session: Session, key: str) -> Iterator[None]:
    """Add the key that was probably meant to the error that says that there is none."""
    try:
        yield
    except ApiError as error:
        if error.code == "not-found" and somebody_watches():
            error.hint = did_you_mean(key, _keys_near(session, key), error.hint)
        raise


def say_if_nothing(session: Session, what: str, pattern: str, known: Iterable[str]) -> None:
    """Say that no ``what`` fits the pattern, and which of the ``known`` was probably meant."""
    meant = "" if GLOB_CHARACTERS & set(pattern) else closest(pattern, known)
    session.say(f"no {what} fits {pattern!r}" + (f"; did you mean {meant!r}?" if meant else ""))


def _keys_near(session: Session, key: str) -> list[str]:
    """Return the keys of the same folder, or all of a small covey."""
    query: Query = {"prefix": key[: key.rfind("/") + 1], "limit": CANDIDATES_MAX}
    try:
        answer = session.client().request("GET", "/api/v1/kv", query=query, timeout_s=TIMEOUT_S)
        return [entry["key"] for entry in answer.json()["entries"]]
    except (ClientError, ValueError, KeyError):
        return []
