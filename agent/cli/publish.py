"""``covey publish``: readings from the shell, one or a stream of them.

From stdin, lines are handed over in batches: as many as come within a fifth of a second, so
that a slow sensor's line is not kept waiting and a million lines do not make a million requests.
A bad line is reported with its number and does not stop the others.
"""

import os
import select
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from agent import exits
from agent.cli.output import complain, output_option, write_json, write_line
from agent.cli.param_types import TAG, ValueCommand
from agent.cli.session import Session, pass_session
from agent.exits import AgentError
from agent.text.units import counted
from edge_apps.client import AgentUnreachable, Client, ClientError

if TYPE_CHECKING:
    from agent.telemetry.readings_text import Format, Parsed
    from edge_apps.reading import Reading

FORMATS = ("auto", "plain", "json", "influx")
BATCH_LINES_MAX, BATCH_BYTES_MAX = 1000, 1024 * 1024
POST_READINGS_MAX, POST_BYTES_MAX = 1000, 4 * 1024 * 1024
LINGER_S = 0.2
READ_BYTES = 64 * 1024
LINE_BYTES_MAX = 1024 * 1024
"""What is kept of one line; the agent's limit is lower, and says so."""
RETRY_S, RETRY_SAID_S = 0.5, 10.0
STDIN = "-"


@click.command(cls=ValueCommand)
@click.argument("sensor", required=False)
@click.argument("value", required=False)
@click.option("--unit", default="", help="Such as C or %.")
@click.option("--tag", "tags", type=TAG, multiple=True, help="May be given several times.")
@click.option("--time", "when", help="Unix seconds, or RFC 3339 with its zone [now].")
@click.option("--text", is_flag=True, help="Take VALUE as a text, also if it looks like a number.")
@click.option("--stdin", "from_stdin", is_flag=True, help="Read lines from stdin, like `-`.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="auto",
    show_default=True,
    help="Of the lines on stdin.",
)
@output_option
@pass_session
def publish(
    session: Session,
    sensor: str | None,
    value: str | None,
    unit: str,
    tags: tuple[tuple[str, str], ...],
    when: str | None,
    *,
    text: bool,
    from_stdin: bool,
    form: str,
    output: str,
) -> None:
    """Hand readings to the agent, which delivers them to the broker.

    Either one reading, SENSOR VALUE, or many from a pipe. Lines are `NAME VALUE [TIME]`, JSON
    objects, or InfluxDB line protocol. A reading counts as accepted
    when it is on the agent's disk. When the agent goes away under a pipe, it is waited for.
    """
    publisher = LinePublisher(session)
    piped = sensor is None and not sys.stdin.isatty()
    if from_stdin or piped or (sensor == STDIN and value is None):
        publisher.publish_lines(form)
    elif sensor is None or value is None:
        raise click.UsageError("give SENSOR and VALUE, or `-` to read lines from stdin")
    else:
        publisher.post([_reading(sensor, value, unit, when, dict(tags), as_text=text)])
    if output == "json":
        write_json(publisher.receipt())
    else:
        write_line(f"accepted {publisher.accepted}")
    publisher.complain()


class LinePublisher:
    """Hands batches to the agent, and keeps the sums."""

    def __init__(self, session: Session) -> None:
        self.accepted = 0
        self._first = self._last = ""
        self._session = session
        self._client: Client = session.client()
        self._bad = 0
        self._perhaps_twice = 0

    def receipt(self) -> dict[str, int | str]:
        """Return what the agent accepted; the ids are empty while that is nothing."""
        return {"accepted": self.accepted, "first": self._first, "last": self._last}

    def post(self, readings: "Iterable[Reading]") -> None:
        """Hand over readings, in as few requests as the agent takes."""
        for body, count in bodies(readings):
            answer = self._request(body, count)
            self.accepted += int(answer["accepted"])
            self._first = self._first or str(answer["first"])
            self._last = str(answer["last"])

    def publish_lines(self, form: str) -> None:
        """Hand over what stdin has, until it ends."""
        from agent.telemetry.readings_text import GoodLine, parse

        good: list[Reading] = []

        def lines() -> Iterator[bytes]:
            # Who asks for a line behind a batch has parsed all before it; a text that goes on
            # over several lines may begin in one batch and end in the next.
            for batch in batches(sys.stdin.fileno()):
                yield from batch
                self.post(good)
                good.clear()

        parsed: Parsed
        for parsed in parse(lines(), None if form == "auto" else _as_format(form)):
            if isinstance(parsed, GoodLine):
                good += parsed.readings
            else:
                self._bad += 1
                complain(str(parsed))
        self.post(good)

    def complain(self) -> None:
        """Tell what may be twice. Raises AgentError if lines were bad."""
        if self._perhaps_twice:
            self._session.say(
                f"The agent went away while it was handed {self._perhaps_twice} readings. They "
                "were sent again, and may be in its outbox twice."
            )
        if self._bad:
            raise AgentError(
                f"{self._bad} of the lines could not be read and were left out; "
                f"readings accepted from the others: {self.accepted}",
                "correct the lines named above, and publish only those again",
                exits.NO,
            )

    def _request(self, body: bytes, count: int) -> dict[str, str | int]:
        """Post one body. Once something was accepted, an agent that went away is waited for.

        What was sent when it went may be on its disk or not, and is sent again: at least once.
        """
        began = told = time.monotonic()
        uncertain = False
        while True:
            try:
                answer: dict[str, str | int] = self._client.request(
                    "POST",
                    "/api/v1/readings",
                    body=body,
                    headers={"Content-Type": "application/json"},
                ).json()
            except AgentUnreachable as error:
                if not self.accepted:
                    raise
                uncertain |= error.was_asked
                now = time.monotonic()
                if told == began or now - told >= RETRY_SAID_S:
                    told = now
                    self._session.say(
                        f"{error.message}; waiting for it, {now - began:.0f} s so far, "
                        f"with {counted(count, 'reading')} in hand "
                        f"(accepted before: {self.accepted})"
                    )
                time.sleep(RETRY_S)
            except ClientError as error:
                if self.accepted:
                    error.hint = (
                        f"the {self.accepted} readings before were accepted, up to "
                        f"{self._last}. {error.hint}"
                    )
                raise
            else:
                self._perhaps_twice += count if uncertain else 0
                return answer


def bodies(readings: "Iterable[Reading]") -> Iterator[tuple[bytes, int]]:
    """Yield JSON lists that one request may have, and how many readings are in each."""
    import msgspec

    parts: list[bytes] = []
    size_bytes = 0
    for reading in readings:
        part = msgspec.json.encode(reading)
        if parts and (size_bytes + len(part) > POST_BYTES_MAX or len(parts) >= POST_READINGS_MAX):
            yield b"[" + b",".join(parts) + b"]", len(parts)
            parts, size_bytes = [], 0
        parts.append(part)
        size_bytes += len(part) + 1
    if parts:
        yield b"[" + b",".join(parts) + b"]", len(parts)


def batches(source: int) -> Iterator[list[bytes]]:
    """Yield the lines of a file descriptor: those that come within LINGER_S, at most a batch."""
    lines: list[bytes] = []
    size_bytes = 0
    rest = b""
    due = 0.0
    while True:
        patience = max(0.0, due - time.monotonic()) if lines else None
        if not select.select([source], [], [], patience)[0]:
            yield lines
            lines, size_bytes = [], 0
            continue
        chunk = os.read(source, READ_BYTES)
        if not chunk:
            break
        *complete, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise AgentError(f"a line has more than {LINE_BYTES_MAX} bytes", "divide it by lines")
        if complete and not lines:
            due = time.monotonic() + LINGER_S
        for line in complete:
            lines.append(line)
            size_bytes += len(line)
            if len(lines) >= BATCH_LINES_MAX or size_bytes >= BATCH_BYTES_MAX:
                yield lines
                lines, size_bytes = [], 0
    if rest or lines:
        yield [*lines, rest] if rest else lines


def _reading(
    sensor: str, value: str, unit: str, when: str | None, tags: dict[str, str], *, as_text: bool
) -> "Reading":
    """Check a reading here already: the complaint comes without an agent, too."""
    from agent.telemetry.plain_lines import parse_time, parse_value
    from edge_apps.reading import UNTIMED, BadReading, Reading, check

    try:
        time_ns = parse_time(when) if when else UNTIMED
        found = value if as_text else parse_value(value)
        return check(Reading(sensor, found, unit, time_ns, tags))
    except BadReading as error:
        raise click.UsageError(str(error)) from None


def _as_format(text: str) -> "Format":
    from agent.telemetry.readings_text import FORMATS as KNOWN

    return next(form for form in KNOWN if form == text)
