"""What a write is to survive before it is acknowledged, as a client says it."""

from agent.api.errors import BadRequest
from agent.http.request import Request

WORDS: dict[str, bool | None] = {"": None, "flush": False, "fsync": True}


def wants_fsync(request: Request) -> bool | None:
    """Return what ``?durability=`` asks for, None for what the configuration says."""
    return fsync_of(request.query_params.get("durability", ""))


def fsync_of(word: str) -> bool | None:
    """Return what a word asks for. Raises BadRequest."""
    if word not in WORDS:
        raise BadRequest(f"`durability={word[:40]}` is none", "it is flush or fsync")
    return WORDS[word]
