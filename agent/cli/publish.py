"""``covey publish``: readings from the shell, one or a stream of them.

From stdin, lines are handed over in batches: as many as come within a fifth of a second, so
that a slow sensor's line is not kept waiting and a million lines do not make a million requests.
A bad line is reported with its number and does not stop the others.
"""

import os
import select
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from agent import exits
from agent.cli.output import complain, output_option, write_json, write_line
from agent.cli.parameters import TAG
from agent.cli.session import Session, pass_session
from agent.exits import AgentError
from edge_apps.client import Client, ClientError

if TYPE_CHECKING:
    from agent.telemetry.lines import Format
    from edge_apps.reading import Reading

FORMATS = ("auto", "plain", "json", "influx")
BATCH_LINES_MAX = 1000
LINGER_S = 0.2
READ_BYTES = 64 * 1024
LINE_BYTES_MAX = 64 * 1024
STDIN = "-"


@click.command()
@click.argument("sensor", required=False)
@click.argument("value", required=False)
@click.option("--unit", default="", help="Such as C or %.")
@click.option("--tag", "tags", type=TAG, multiple=True, help="May be given several times.")
@click.option("--time", "when", help="Unix seconds, or RFC 3339 with its zone [now].")
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
    from_stdin: bool,
    form: str,
    output: str,
) -> None:
    """Hand readings to the agent, which delivers them to the broker.

    Either one reading, SENSOR VALUE, or many from a pipe. Lines are `NAME VALUE [TIME]`, JSON
    objects, or InfluxDB line protocol. A reading counts as accepted
    when it is on the agent's disk.
    """
    piped = sensor is None and not sys.stdin.isatty()
    if from_stdin or piped or (sensor == STDIN and value is None):
        publisher = Publisher(session.client())
        publisher.publish_lines(form)
    elif sensor is None or value is None:
        raise click.UsageError("give SENSOR and VALUE, or `-` to read lines from stdin")
    else:
        publisher = Publisher(session.client())
        publisher.post([_reading(sensor, value, unit, when, dict(tags))])
    if output == "json":
        write_json(publisher.receipt._asdict())
    else:
        write_line(f"accepted {publisher.receipt.accepted}")
    publisher.complain()


class ReceiptSoFar(NamedTuple):
    """What the agent accepted; ids are empty while that is nothing."""

    accepted: int = 0
    first: str = ""
    last: str = ""


class Publisher:
    """Hands batches to the agent, and keeps the sums."""

    def __init__(self, client: Client) -> None:
        self.receipt = ReceiptSoFar()
        self._client = client
        self._bad = 0

    def post(self, readings: "list[Reading]") -> None:
        """Hand over one batch."""
        import msgspec

        if not readings:
            return
        headers = {"Content-Type": "application/json"}
        body = msgspec.json.encode(readings)
        try:
            answer: dict[str, Any] = self._client.request(
                "POST", "/api/v1/readings", body=body, headers=headers
            ).json()
        except ClientError as error:
            if self.receipt.accepted:
                error.hint = (
                    f"the {self.receipt.accepted} readings before were accepted, up to "
                    f"{self.receipt.last}. {error.hint}"
                )
            raise
        self.receipt = ReceiptSoFar(
            self.receipt.accepted + answer["accepted"],
            self.receipt.first or answer["first"],
            answer["last"],
        )

    def publish_lines(self, form: str) -> None:
        """Hand over what stdin has, until it ends."""
        from agent.telemetry.lines import BadLine, detect, parse

        known: Format | None = None if form == "auto" else _as_format(form)
        before = 0
        for batch in batches(sys.stdin.fileno()):
            meaningful = (line for line in batch if line.strip() and not line.startswith("#"))
            if known is None and (first := next(meaningful, None)) is not None:
                known = detect(first.strip())
            outcomes = list(parse(batch, known))
            for bad in (one for one in outcomes if isinstance(one, BadLine)):
                self._bad += 1
                complain(f"line {before + bad.number}: {bad.problem}")
            self.post([one for one in outcomes if not isinstance(one, BadLine)])
            before += len(batch)

    def complain(self) -> None:
        """Raise AgentError if lines were bad."""
        if self._bad:
            raise AgentError(
                f"{self._bad} of the lines could not be read and were left out; "
                f"readings accepted from the others: {self.receipt.accepted}",
                "correct the lines named above, and publish only those again",
                exits.NO,
            )


def batches(source: int) -> Iterator[list[str]]:
    """Yield the lines of a file descriptor: those that come within LINGER_S, at most a batch."""
    lines: list[str] = []
    rest = b""
    due = 0.0
    while True:
        patience = max(0.0, due - time.monotonic()) if lines else None
        if not select.select([source], [], [], patience)[0]:
            yield lines
            lines = []
            continue
        chunk = os.read(source, READ_BYTES)
        if not chunk:
            break
        *complete, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise AgentError(f"a line has more than {LINE_BYTES_MAX} bytes", "divide it by lines")
        if complete and not lines:
            due = time.monotonic() + LINGER_S
        lines += [line.decode(errors="replace") for line in complete]
        while len(lines) >= BATCH_LINES_MAX:
            yield lines[:BATCH_LINES_MAX]
            del lines[:BATCH_LINES_MAX]
    if rest or lines:
        yield [*lines, rest.decode(errors="replace")]


def _reading(
    sensor: str, value: str, unit: str, when: str | None, tags: dict[str, str]
) -> "Reading":
    """Check a reading here already: the complaint comes without an agent, too."""
    from agent.telemetry.lines import parse_time, parse_value
    from edge_apps.reading import BadReading, Reading, check

    try:
        time_ns = parse_time(when) if when else 0
        return check(Reading(sensor, parse_value(value), unit, time_ns, tags))
    except BadReading as error:
        raise click.UsageError(str(error)) from None


def _as_format(text: str) -> "Format":
    from agent.telemetry.lines import FORMATS as KNOWN

    return next(form for form in KNOWN if form == text)
