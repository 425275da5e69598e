"""Types of arguments that several commands take."""

from typing import Any

import click

from agent.notation import parse_duration


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
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


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


DURATION = Duration()
TAG = Pair("tag")
FACT = Pair("fact")
