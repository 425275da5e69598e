"""A finding: one thing that was looked at, how it is, and what to do about it."""

from enum import StrEnum

import msgspec


class Status(StrEnum):
    """How something is; ``fail`` keeps the agent from its work, or will soon."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """``id`` is a stable word for programs; ``hint`` says what to do, empty when all is well."""

    id: str
    status: Status
    message: str
    hint: str = ""


def ok(name: str, message: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(name, Status.OK, message)


def warn(name: str, message: str, hint: str) -> Finding:
    """Return a finding that somebody should know of."""
    return Finding(name, Status.WARN, message, hint)


def fail(name: str, message: str, hint: str) -> Finding:
    """Return a finding that somebody should act on."""
    return Finding(name, Status.FAIL, message, hint)
