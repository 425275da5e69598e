"""How a reading becomes an MQTT message: the topic's and the payload's templates.

A template is text with fields in braces, ``covey/{cluster}/{node}/{sensor}``; a brace itself is
written twice. Templates are checked when the agent starts, so that a typo shows at once and not
as a thousand messages on a topic with a brace in it.

Without a payload template, a reading travels as JSON::

    {"id":"...","sensor":"attic/t","value":21.5,"unit":"C","time_ms":1700000000000,
     "node":"pi-attic","tags":{}}

One whose time is to be doubted has a field more, ``"clock"``, with the reason
(``agent/telemetry/timekeeping.py``).

The time is a whole number of milliseconds since 1970: every JSON reader keeps it exactly, where
nanoseconds would exceed the 53 bits that JavaScript keeps, and a text would have to be parsed.
The outbox keeps nanoseconds; ``{time_ns}`` gives them to those who ask.
"""

import json
from collections.abc import Callable
from string import Formatter

import msgspec

from agent.exits import BAD_CONFIG, AgentError
from agent.telemetry.outbox import Accepted
from edge_apps.reading import Reading, Value
from edge_apps.texts import TOPIC_BYTES_MAX, TOPICS_REMEMBERED_MAX, topic_flaw

NS_PER_MS = 1_000_000


class Message(msgspec.Struct, frozen=True, gc=False):
    """What goes to the broker."""

    topic: str
    payload: bytes


class TemplateContext(msgspec.Struct, frozen=True):
    """Where readings come from: the names of the covey and the node, and the node's id."""

    cluster: str
    node: str
    node_id: str


class _Payload(msgspec.Struct, omit_defaults=True):
    """The default payload; the order of its fields is the order in the JSON."""

    id: str
    sensor: str
    value: Value
    unit: str
    time_ms: int
    node: str
    tags: dict[str, str]
    clock: str = ""


Field = Callable[[Accepted], str]


class Template:
    """Turns accepted readings into messages. Raises AgentError for a template that cannot."""

    def __init__(self, topic: str, payload: str, place: TemplateContext) -> None:
        fields = _fields(place)
        self._node = place.node
        self._topic = _compile("topic", topic, {name: fields[name] for name in TOPIC_FIELDS})
        self._payload = _compile("payload", payload, fields) if payload else None
        self._encoder = msgspec.json.Encoder()
        _check_topic(topic, self._render(self._topic, EXAMPLE))
        self._topics: dict[str, str] = {}
        """By sensor, of which alone a topic depends; forgotten together when they are many."""

    def message(self, accepted: Accepted) -> Message:
        """Return the message for one reading."""
        topic = self._topics.get(accepted.reading.sensor) or self._topic_of(accepted)
        if self._payload is not None:
            return Message(topic, self._render(self._payload, accepted).encode())
        return Message(topic, self._default(accepted))

    def _topic_of(self, accepted: Accepted) -> str:
        if len(self._topics) >= TOPICS_REMEMBERED_MAX:
            self._topics.clear()
        topic = self._render(self._topic, accepted)
        self._topics[accepted.reading.sensor] = topic
        return topic

    def _default(self, accepted: Accepted) -> bytes:
        reading = accepted.reading
        return self._encoder.encode(
            _Payload(
                accepted.id,
                reading.sensor,
                reading.value,
                reading.unit,
                reading.time_ns // NS_PER_MS,
                self._node,
                reading.tags,
                accepted.clock,
            )
        )

    @staticmethod
    def _render(parts: list[str | Field], accepted: Accepted) -> str:
        return "".join(part if isinstance(part, str) else part(accepted) for part in parts)


TOPIC_FIELDS = ("cluster", "node", "node_id", "sensor")
EXAMPLE = Accepted(1, "example", Reading("sensor", 1.0))


def _fields(place: TemplateContext) -> dict[str, Field]:
    """Return how each field is written; values are written as JSON writes them, texts bare."""
    return {
        "cluster": lambda _: place.cluster,
        "node": lambda _: place.node,
        "node_id": lambda _: place.node_id,
        "sensor": lambda accepted: accepted.reading.sensor,
        "id": lambda accepted: accepted.id,
        "value": lambda accepted: _bare(accepted.reading.value),
        "unit": lambda accepted: accepted.reading.unit,
        "time_ms": lambda accepted: str(accepted.reading.time_ns // NS_PER_MS),
        "time_ns": lambda accepted: str(accepted.reading.time_ns),
        "tags": lambda accepted: json.dumps(accepted.reading.tags),
        "clock": lambda accepted: accepted.clock,
    }


def _bare(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _compile(what: str, template: str, fields: dict[str, Field]) -> list[str | Field]:
    """Split a template into texts and fields. Raises AgentError."""
    parts: list[str | Field] = []
    try:
        for text, name, spec, conversion in Formatter().parse(template):
            if text:
                parts.append(text)
            if name is not None:
                if spec or conversion or name not in fields:
                    raise _bad(what, template, f"{{{name}}} is none of its fields", fields)
                parts.append(fields[name])
    except ValueError as error:
        raise _bad(what, template, str(error), fields) from None
    return parts


def _check_topic(template: str, example: str) -> None:
    found = topic_flaw(example)
    if found:
        raise AgentError(
            f"The topic template {template!r} gives {example[:80]!r}, to which MQTT cannot "
            f"publish: {found}.",
            hint="Leave out '+', '#' and a '$' at the start, also in the names of the cluster and "
            "the node.",
            status=BAD_CONFIG,
        )
    if len(example.encode()) > TOPIC_BYTES_MAX // 2:
        raise AgentError(
            "The topic template is too long.",
            hint="Shorten topic in [uplink].",
            status=BAD_CONFIG,
        )


def _bad(what: str, template: str, problem: str, fields: dict[str, Field]) -> AgentError:
    names = ", ".join(f"{{{name}}}" for name in fields)
    return AgentError(
        f"The {what} template {template!r} in [uplink] cannot be used: {problem}.",
        hint=f"Its fields are {names}, without format or conversion; write a brace as '{{{{'.",
        status=BAD_CONFIG,
    )
