"""Types of arguments that several commands take, and arguments that begin with a dash."""

import re
from collections.abc import Collection, Iterable
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_apps.units import read_duration

if TYPE_CHECKING:
    from click.parser import _OptionParser


COPIES_WORDS = ("one", "quorum", "all")
TTL_S_MIN, TTL_S_MAX = 1.0, 3660 * 86_400.0
"""As the agent bounds them; said here in the units that people type."""


class Duration(click.ParamType[float]):
    """``500ms``, ``10s``, ``1h``: becomes seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds. Ends the command with a usage error for anything else."""
        if isinstance(value, float):
            return value
        try:
            return read_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class TimeToLive(click.ParamType[float]):
    """How long a value stays, or ``none``: becomes seconds, 0 for none."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the seconds. Ends the command with a usage error for anything else."""
        if value == "none":
            return 0.0
        ttl_s = DURATION.convert(value, param, ctx)
        if not TTL_S_MIN <= ttl_s <= TTL_S_MAX:
            self.fail(f"{value!r}: write 1s to 3660d, or none for no end", param, ctx)
        return ttl_s


class Quota(click.ParamType[int]):
    """``1000``, ``64K``, ``10M``, ``2G`` with powers of 1024, or ``none``: becomes 0 for none."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number. Ends the command with a usage error for anything else."""
        if value == "none":
            return 0
        found = re.fullmatch(r"([0-9]{1,15})([KMG]?)(i?B)?", str(value), re.ASCII)
        if found is None or not int(found[1]):
            self.fail(
                f"{value!r:.40} is no number such as 1000, 64K, 10M or 2G, nor `none`", param, ctx
            )
        return int(found[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[found[2]]


class Pair(click.ParamType[tuple[str, str]]):
    """``NAME=VALUE``: becomes a pair. ``what`` says of what, for complaints."""

    name = "name=value"

    def __init__(self, what: str) -> None:
        self._what = what

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return the pair. Ends the command with a usage error for anything else."""
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not name or not equals:
            self.fail(f"{value!r} is no {self._what}; write NAME=VALUE", param, ctx)
        return name, text


class Name(click.ParamType[str]):
    """A name or an id, as one part of a path of the API: not empty, and without ``/``.

    A shell variable that was never set becomes an empty argument.
    """

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text. Ends the command with a usage error for what nothing is called."""
        if not value:
            self.fail("it is empty", param, ctx)
        if "/" in value:
            self.fail(f"{value!r}: nothing is called so, for '/' is in no such name", param, ctx)
        return str(value)


class Copies(click.ParamType[str]):
    """``one``, ``quorum``, ``all``, or how many: stays text, as the API takes it."""

    name = "copies"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text. Ends the command with a usage error for anything else."""
        text = str(value)
        if text not in COPIES_WORDS and not (text.isascii() and text.isdigit() and int(text)):
            self.fail(f"{text!r}: write one, quorum, all, or a number from 1 on", param, ctx)
        return text


class Number(click.ParamType[float]):
    """A number, whole where it is written so."""

    name = "number"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return an int or a float. Ends the command with a usage error for anything else."""
        if not _is_number(str(value)):
            self.fail(f"{value!r} is no number", param, ctx)
        try:
            return int(value)
        except ValueError:
            return float(value)


class Share(click.ParamType[tuple[str, str]]):
    """``zone=ZONE`` or ``capacity=NUMBER``: becomes a pair."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return the pair. Ends the command with a usage error for anything else."""
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not equals or name not in ("zone", "capacity"):
            self.fail(f"{value!r}: write zone=ZONE or capacity=NUMBER", param, ctx)
        if name == "capacity" and not _is_number(text):
            self.fail(f"{value!r}: a capacity is a number, such as 1 or 0.5", param, ctx)
        return name, text


def _is_number(text: str) -> bool:
    try:
        return isfinite(float(text))
    except ValueError:
        return False


def shares_of(given: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return what was asked for by name, as the API takes it."""
    return {name: float(text) if name == "capacity" else text for name, text in given}


class FilePath(click.ParamType[Path]):
    """Where a file is, or is to be."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        if "\0" in str(value):
            self.fail("a path has no null bytes", param, ctx)
        return Path(value)


QUOTA = Quota()
COPIES = Copies()
DURATION = Duration()
FILE = FilePath()
NAME = Name()
TAG = Pair("tag")
TTL = TimeToLive()
FACT = Pair("fact")
NUMBER = Number()
OPTION = Pair("option")
SHARE = Share()


class ValueCommand(click.Command):
    """A command whose arguments may begin with a dash, as the temperature in a frosty night does.

    What begins with one dash and is none of the command's short options is an argument: ``-5``,
    ``-3.5C``, ``-x``. Two dashes always begin an option, so that a mistyped one is not taken for a
    value; behind a lone ``--`` everything is an argument, as everywhere.
    """

    def make_parser(self, ctx: click.Context) -> "_OptionParser":
        """Return click's parser, from which such arguments are hidden."""
        parser = super().make_parser(ctx)
        parse = parser.parse_args
        options = {name for param in self.get_params(ctx) for name in param.opts}

        def parse_shielded(
            args: list[str],
        ) -> tuple[dict[str, Any], list[str], list[click.Parameter]]:
            values, rest, order = parse(args=[_shielded(arg, options) for arg in args])
            bare = {name: _bared(value) for name, value in values.items()}
            return bare, [_bared(arg) for arg in rest], order

        parser.parse_args = parse_shielded  # type: ignore[method-assign]
        return parser


class ValueGroup(click.Group):
    """A group of such commands."""

    command_class = ValueCommand


SHIELD = "\0"
"""In front of an argument that click is not to take for an option. No shell can pass it."""


def _shielded(arg: str, options: Collection[str]) -> str:
    dashed = len(arg) > 1 and arg[0] == "-" and arg[1] != "-"
    return SHIELD + arg if dashed and arg[:2] not in options else arg


def _bared(value: Any) -> Any:
    if isinstance(value, str):
        return value.removeprefix(SHIELD)
    return type(value)(map(_bared, value)) if isinstance(value, list | tuple) else value
