"""What the command line says to somebody who mistyped: the likely name, in its own spelling."""

import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import agent.cli.api_words
import agent.text.suggestions
import gossip.membership.model.local_member
from agent import exits
from agent.api.routes import ROUTES
from agent.cli.api_words import SPELLINGS, plain, spelled
from agent.cli.errors import ALSO_CALLED, IN_WORDS, VERBS
from agent.telemetry.outbox import Accepted
from agent.text.suggestions import CANDIDATES_MAX, closest
from gossip.core.errors import LimitExceeded
from gossip.events.events import check
from gossip.events.messages import Event, Query
from gossip.kv.requests import GetResult
from tests.support.command_line import Covey
from tests.support.fake_agent import ME, Served, serving
from tests.unit.house.test_docs_reference import EVERY_COMMAND

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as running:
        running.agent.kv.values = {"lights/north": [b"on"], "lights/south": [b"off"]}
        yield running


def test_the_examples_in_the_docstrings() -> None:
    for module in (
        agent.text.suggestions,
        agent.cli.api_words,
        gossip.membership.model.local_member,
    ):
        assert doctest.testmod(module).failed == 0
        assert doctest.testmod(module).attempted > 0


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["memebrs"], "`covey members`"),
        (["get", "k"], "`covey kv get`"),
        (["put", "k", "v"], "`covey kv put`"),
        (["event", "sned", "x"], "`covey event send`"),
        (["kv", "write", "k", "v"], "`covey kv put`"),
        (["kv", "rm", "k"], "`covey kv delete`"),
        (["app", "logs", "system"], "`covey app log`"),
        (["keys", "ls"], "`covey keys list`"),
        (["members", "--wach"], "`--watch`"),
        (["members", "show", "adda"], "'ada'"),
        (["rtt", "BOB"], "'bob'"),
        (["facts", "list", "aad"], "'ada'"),
    ],
)
def test_did_you_mean(served: Served, covey: Covey, arguments: list[str], meant: str) -> None:
    outcome = covey(*arguments)
    assert outcome.status in (exits.USAGE, exits.NOT_FOUND)
    assert f"did you mean {meant}?" in outcome.stderr.splitlines()[1]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["kv", "list", "--limit", "0"], "'--limit': 0 is no number from 1 on."),
        (["events", "--limit", "-1"], "'--limit': -1 is no number from 0 to 256."),
        (["simulate", "--seconds", "5"], "'--seconds': 5.0 is no number from 10 to 86400."),
        (["simulate", "--loss", "91"], "'--loss': 91.0 is no number from 0 to 90."),
        (["kv", "put", "k", "v", "--ttl", "4000d"], "'--ttl': '4000d': write 1s to 3660d, or none"),
        (["kv", "put", "k", "v", "--ttl", "0s"], "'--ttl': '0s': write 1s to 3660d, or none"),
        (["completion"], "Missing argument 'SHELL'. Choose from: bash, zsh, fish"),
        (["kv", "get", "k", "--timeout", "0s"], "`--timeout`: 0.0 is no number above 0"),
    ],
)
def test_ranges_and_lists_are_told_in_words(
    served: Served, covey: Covey, arguments: list[str], told: str
) -> None:
    outcome = covey(*arguments)
    assert outcome.status == exits.USAGE
    assert told in outcome.stderr


def test_no_notation_of_a_program_is_left_for_any_range() -> None:
    for least, most in ((1, None), (0, 256), (None, 2), (-1.5, 1e9)):
        for kind in (click.IntRange, click.FloatRange):
            if kind is click.IntRange and isinstance(least, float):
                continue
            with pytest.raises(click.BadParameter) as caught:
                kind(least, most).convert("-7" if least is not None else "7", None, None)  # type: ignore[arg-type]
            said = plain(caught.value.message)
            assert "x" not in said.replace("'", "")
            assert "is no number" in said


def test_keys_are_suggested_to_a_person(
    served: Served, covey: Covey, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "did you mean" not in covey("kv", "get", "lights/nroth").stderr
    monkeypatch.setattr("agent.cli.suggestions.somebody_watches", lambda: True)
    outcome = covey("kv", "get", "lights/nroth")
    assert outcome.status == exits.NOT_FOUND
    assert "did you mean 'lights/north'?" in outcome.stderr


def test_sensors_events_and_facts_that_nobody_has(
    served: Served, covey: Covey, monkeypatch: pytest.MonkeyPatch
) -> None:
    covey("publish", "attic/temperature", "21")
    accepted = served.agent.telemetry.accepted

    async def recent(pattern: str, _limit: int) -> list[Accepted]:
        return accepted if pattern == "*" else []

    monkeypatch.setattr(served.agent.telemetry, "recent", recent)
    told = covey("readings", "--sensor", "atic/temperature").stderr
    assert "no sensor fits 'atic/temperature'; did you mean 'attic/temperature'?" in told
    assert covey("readings", "--sensor", "x/*").stderr == "no sensor fits 'x/*'\n"
    assert "no event fits 'dor'; did you mean 'door'?" in covey("events", "--name", "dor").stderr
    assert "did you mean 'rack'?" in covey("facts", "list", "--name", "rakc").stderr
    covey("facts", "set", "litres=1")
    assert "did you mean 'litres'?" in covey("facts", "unset", "liters").stderr


def test_nobody_has_such_a_tag(served: Served, covey: Covey) -> None:
    from agent.cluster.event_json import QuerySummary

    served.agent.event_service.answers = [QuerySummary(0, 0, ())]
    outcome = covey("query", "ping", "--filter", "room=lab")
    assert outcome.status == exits.NOT_FOUND
    assert "no member that is alive has the tag room=lab; nobody was asked" in outcome.stderr


def test_nobody_answers_such_queries(served: Served, covey: Covey) -> None:
    from agent.cluster.event_json import QueryResponse, QuerySummary
    from gossip.events.messages import ResponseKind

    served.agent.event_service.answers = [
        QueryResponse(ME, "ada", ResponseKind.NOBODY, b"", 0.1),
        QuerySummary(0, 1, ()),
    ]
    outcome = covey("query", "uptme")
    assert outcome.status == exits.UNHEALTHY
    assert "no member that was asked answers 'uptme'" in outcome.stderr
    assert "did you mean 'uptime'?" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["kv", "put", "k", "v", "-w", "9"], "`-w 9`"),
        (["kv", "get", "k", "-r", "99"], "`-r 99`"),
        (["kv", "get", "k", "--timeout", "2h"], "`--timeout`: 7200.0 is no number"),
        (["query", "ping", "--timeout", "2h"], "`--timeout`"),
        (["token", "create", "--ttl", "900d"], "`--ttl`"),
        (["sleep", "90d"], "`DURATION`"),
    ],
)
def test_an_option_is_called_as_it_was_typed(
    served: Served, covey: Covey, arguments: list[str], option: str
) -> None:
    outcome = covey(*arguments)
    assert outcome.status == exits.USAGE
    assert option in outcome.stderr
    assert "_s" not in outcome.stderr


def test_a_hint_too(served: Served, covey: Covey) -> None:
    served.agent.kv.outcome = "unavailable"
    assert "accept fewer with `-r 1`" in covey("kv", "get", "k").stderr


def test_fewer_are_offered_only_where_some_answered(
    served: Served, covey: Covey, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get(*_: object, **__: object) -> GetResult:
        return GetResult((), b"", 0, 2, "unavailable")

    monkeypatch.setattr(served.agent.kv, "get", get)
    told = covey("kv", "get", "k")
    assert "only 0 of 2 owners" in told.stderr
    assert "fewer" not in told.stderr


def test_every_parameter_that_the_agent_names_has_a_spelling() -> None:
    """In messages, parameters of the HTTP API stand in backticks."""
    sources = [*(ROOT / "agent" / "api").glob("*.py"), ROOT / "gossip" / "kv" / "requests.py"]
    named = {
        name
        for source in sources
        for line in source.read_text().splitlines()
        if "(" in line or line.lstrip().startswith(('"', 'f"'))
        for name in re.findall(r"[\"' ]`([a-z_]+)(?:=[^`]*)?`[:, \"]", line)
    }
    for_programs = {"precision", "set", "unset", "path", "invite", "change", "drains", "zone"}
    for_programs |= {"generation", "last", "set_aside", "follow", "without", "type"}
    for_programs |= {"absent", "context", "only_if"}
    assert named - for_programs <= SPELLINGS.keys()
    assert len(ROUTES) > len(named) > 5
    assert spelled("`r=1` and `x=1`") == "`-r 1` and `x=1`"


def test_a_verb_stands_where_it_is_said_to_stand() -> None:
    for verb, meant in VERBS.items():
        assert meant.endswith(f" {verb}")
        assert f"covey {meant}" in EVERY_COMMAND
        assert not isinstance(EVERY_COMMAND[f"covey {meant}"], click.Group)


@pytest.mark.parametrize("typed", IN_WORDS)
def test_what_newcomers_type_is_answered_with_commands_that_are_there(
    covey: Covey, typed: str
) -> None:
    outcome = covey(*typed.split()[1:])
    assert outcome.status == exits.USAGE
    assert IN_WORDS[typed] in outcome.stderr
    assert typed not in EVERY_COMMAND
    named = re.findall("`(covey [a-z ]+[a-z])`", IN_WORDS[typed])
    assert all(command in EVERY_COMMAND for command in named)


def test_commands_that_messages_name_do_something() -> None:
    """A noun that only lists its verbs is no advice: `covey keys` shows no keys."""
    named = {
        words
        for source in (ROOT / "agent").rglob("*.py")
        for words in re.findall(r"(?<!`)`(covey [a-z][a-z ]*)(?: [^`]*)?`(?!`)", source.read_text())
    }
    assert len(named) > 30
    for words in named:
        command = EVERY_COMMAND[words]
        assert not isinstance(command, click.Group) or command.invoke_without_command, words


@pytest.mark.parametrize(
    "command",
    [
        *("members show", "members allow", "members forbid", "members remove --yes"),
        *("token revoke", "app start", "app stop", "app log"),
        *("node show", "node drain", "node undrain", "ring plan drain"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused_before_anybody_is_asked(
    served: Served, covey: Covey, command: str
) -> None:
    for typed in ("", "a/b", "../status"):
        outcome = covey(*command.split(), typed)
        assert outcome.status == exits.USAGE
        assert "Invalid value for '" in outcome.stderr
        assert "/api/" not in outcome.stderr


def test_no_other_name_hides_a_command() -> None:
    groups = [each for each in EVERY_COMMAND.values() if isinstance(each, click.Group)]
    known = {name for group in groups for name in group.list_commands(click.Context(group))}
    assert set(ALSO_CALLED.values()) <= known


def test_looking_for_a_name_is_bounded() -> None:
    known = [f"member-{number}" for number in range(100_000)]
    assert closest("member-99999", iter(known)) in known[:CANDIDATES_MAX]
    assert closest("x" * 10_000, known) == ""


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (Event(ME, 1, 1, 1, "x", b"y" * 513), "a payload has at most 512 bytes, not 513"),
        (Event(ME, 1, 1, 1, "x" * 65, b""), "a name has 1 to 64 characters, not 65"),
        (Event(ME, 1, 1, 1, "\ud800", b""), "no text"),
        (Query(ME, 1, 1, "x", b"", {"t": "v" * 257}, 1), "the value of the tag 't' has 257"),
        (Query(ME, 1, 1, "x", b"", {"t" * 65: "v"}, 1), "has a name of 65 characters"),
        (Query(ME, 1, 1, "x", b"", {str(n): "" for n in range(33)}, 1), "there are 33 tags"),
    ],
)
def test_what_does_not_fit_is_said_in_words(words: Event | Query, problem: str) -> None:
    with pytest.raises(LimitExceeded, match=re.escape(problem)) as caught:
        check(words)
    assert "$" not in str(caught.value)
    assert "Expected" not in str(caught.value)
