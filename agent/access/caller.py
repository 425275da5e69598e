"""Who asks: what this one is called in the audit log, and what it may do."""

from collections.abc import Iterable

import msgspec

from agent.access.rights import ALL_RIGHTS, NEEDS_SECRECY, OF_APP, Right
from agent.exits import NOT_PERMITTED, AgentError


class NotItsRight(AgentError):
    """Somebody lacks a right; nothing was done."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint, NOT_PERMITTED)


class Caller(msgspec.Struct, frozen=True):
    """Somebody at one of the API's sockets, who has shown that it may be there."""

    who: str
    rights: frozenset[Right]
    keys: tuple[str, ...] = ()
    """How the shared keys begin that it may use; none: all of them."""
    names: tuple[str, ...] = ()
    """The same for the control plane: keys, locks."""
    label: str = ""
    """Of the sessions that it opens, and of the only ones that it may use; "": all."""
    app: str = ""
    withheld: frozenset[Right] = frozenset()
    """What it would have over a connection that nobody can overhear."""

    def check(self, right: Right) -> None:
        """Raise NotItsRight unless this caller has the right."""
        if right in self.rights:
            return
        if right in self.withheld:
            raise NotItsRight(
                f"{self.who} came without TLS, where its token can be overheard; nothing was done",
                "set tls = true in [api], or ask on the device itself",
            )
        raise NotItsRight(
            f"{self.who} may not do this, which takes the right `{right.value}`; nothing was done",
            "somebody who may use the agent's Unix socket can do it, or make a token that can: "
            "`covey access create`",
        )

    def in_the_clear(self) -> "Caller":
        """Return the same, by a connection that others can read."""
        left = self.rights - NEEDS_SECRECY
        return msgspec.structs.replace(self, rights=left, withheld=self.rights - left)


def local_caller(uid: int | None) -> Caller:
    """Return who is at the Unix socket, where the file system decides."""
    return Caller("somebody here" if uid is None else f"uid {uid}", ALL_RIGHTS)


def app_caller(
    name: str, rights: Iterable[str] = tuple(OF_APP), keys: Iterable[str] = ()
) -> Caller:
    """Return an app with what its table in ``covey.toml`` says.

    In the control plane it has what is called after it, and nothing else.
    """
    may = frozenset[Right]().union(*(OF_APP[word] for word in rights))
    own = f"apps/{name}/"
    return Caller(f"app {name}", may, tuple(keys), (own,), f"app:{name}", app=name)
