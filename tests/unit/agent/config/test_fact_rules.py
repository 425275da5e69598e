"""What an agent tells about its machine keeps to the limits, whatever machine it is."""

from datetime import datetime
from pathlib import Path

import pytest

from agent._version import __version__
from agent.config.fact_rules import BUILT_IN, app_facts, built_in, check_fact
from agent.config.loader import load
from agent.config.paths import Paths
from agent.config.service_address import ServiceAddress, parse_service, service_of_api
from agent.exits import BAD_CONFIG, AgentError
from gossip.membership.model.facts import FACT_NAME_CHARACTERS_MAX, flaw


def test_versions_and_capacities_are_told(tmp_path: Path) -> None:
    facts = built_in(tmp_path, 1_700_000_000.5, "wan")
    assert facts["covey"] == __version__
    assert facts["wire"] == "1"
    assert facts["profile"] == "wan"
    assert datetime.fromisoformat(facts["started_at"]).timestamp() == 1_700_000_000
    assert int(facts["memory_bytes"]) > 2**20
    assert int(facts["disk_bytes"]) > 2**20
    assert int(facts["cores"]) >= 1
    assert not flaw(facts)


def test_what_a_machine_does_not_tell_is_left_out(tmp_path: Path) -> None:
    facts = built_in(tmp_path / "missing", 0.0, "lan")
    assert "disk_bytes" not in facts
    assert all(facts.values())


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ("", None),
        ("127.0.0.1:7748", None),
        ("[::1]:7748", None),
        ("localhost:7748", None),
        ("0.0.0.0:7748", ":7748/http"),
        ("[::]:7748", ":7748/http"),
        ("10.0.0.7:7748", "10.0.0.7:7748/http"),
        ("[fd00::7]:7748", "[fd00::7]:7748/http"),
        ("pi.lan:80", "pi.lan:80/http"),
    ],
)
def test_the_api_is_a_service_where_others_reach_it(
    tmp_path: Path, listen: str, told: str | None
) -> None:
    facts = built_in(tmp_path, 0.0, "lan", service_of_api(listen))
    assert facts.get("service/covey-api") == told
    assert set(facts) <= set(BUILT_IN)
    with_tls = service_of_api(listen, tls=True)
    assert with_tls == (told or "").replace("/http", "/https")


@pytest.mark.parametrize(
    ("text", "service"),
    [
        (":1883/mqtt", ServiceAddress("", 1883, "mqtt")),
        ("10.0.0.7:502/modbus", ServiceAddress("10.0.0.7", 502, "modbus")),
        ("[fd00::7]:80/http", ServiceAddress("fd00::7", 80, "http")),
        ("pump.lan:65535/grpc+tls", ServiceAddress("pump.lan", 65535, "grpc+tls")),
    ],
)
def test_services_are_read_as_they_are_written(text: str, service: ServiceAddress) -> None:
    assert parse_service(text) == service
    assert str(service) == text


@pytest.mark.parametrize(
    "text",
    ["", "mqtt", ":1883", "1883/mqtt", ":/mqtt", ":0/mqtt", ":65536/mqtt", ":1883/", ":1883/MQTT",
     "a:b:1/x", "::1/x", "[fd00::7]/x", "[fd00::7/x", ":1883/mqtt tls", "a b:1/x", " :1/x"],
)  # fmt: skip
def test_what_is_no_service_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write|port|blank"):
        parse_service(text)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("", "1", "cannot be a fact's name"),
        ("a" * 65, "1", "1 to 64 letters"),
        ("a b", "1", "cannot be a fact's name"),
        ("-a", "1", "begins with a letter or digit"),
        ("a=b", "1", "cannot be a fact's name"),
        ("a", "ü" * 2049, "a takes 4098 bytes, of 4096 allowed"),
        ("a", "\udcff", "a: its value is not UTF-8"),
        ("service/web", "80", "is no service"),
    ],
)
def test_what_cannot_be_a_fact(name: str, value: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_fact(name, value)


def test_what_can_be_a_fact() -> None:
    check_fact("a" * 64, "ü" * 2048)
    check_fact("service/web", ":80/http")
    check_fact("9", "")


def test_an_app_whose_name_is_too_long_for_a_fact_is_left_out() -> None:
    longest = "a" * (FACT_NAME_CHARACTERS_MAX - len("app/"))
    told = app_facts({"system": "1.2", "door": "", longest: "3", f"{longest}a": "4"})
    assert told == {"app/system": "1.2", "app/door": "", f"app/{longest}": "3"}
    assert not flaw(told)


def test_facts_and_services_of_the_configuration(tmp_path: Path) -> None:
    paths = Paths.find(tmp_path, {})
    paths.config_file.write_text(
        '[node]\nfacts = { rack = "north" }\n[node.services]\nbroker = ":1883/mqtt"\n'
    )
    config = load(paths, {"COVEY_NODE__FACTS": "rack=south,litres=120"})
    assert config.node.facts == {"rack": "south", "litres": "120"}
    assert config.node.services == {"broker": ":1883/mqtt"}
    assert config.origin("node.services") == f"{paths.config_file}:3"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('facts = { covey = "2" }', "node.facts: 'covey' is told by the agent itself"),
        ('facts = { "app/door" = "2" }', "node.facts: 'app/door' is told by the agent itself"),
        ('facts = { "service/web" = ":80/http" }', "write it in [node.services]"),
        ('facts = { "a b" = "2" }', "node.facts: 'a b' cannot be a fact's name"),
        ("facts = { a = 2 }", 'node.facts.a: 2 is not a text in "quotes"'),
        (f'facts = {{ a = "{"x" * 4097}" }}', "a takes 4097 bytes, of 4096 allowed"),
        ('services = { covey-api = ":80/http" }', "node.services: 'covey-api' is told by"),
        ('services = { web = "80" }', "node.services: '80' is no service; write HOST:PORT/PROT"),
        ('services = { web = ":0/http" }', "a port is a number from 1 to 65535"),
        (f'services = {{ {"a" * 57} = ":1/x" }}', "it has 1 to 64 letters"),
        (
            "[node.facts]\n" + "".join(f"{n} = ''\n" for n in range(244)),
            "node.facts: with those that the agent tells by itself, 257 facts, and 256 are ",
        ),
    ],
)
def test_what_the_configuration_cannot_give(tmp_path: Path, text: str, says: str) -> None:
    paths = Paths.find(tmp_path, {})
    paths.config_file.write_text(f"[node]\n{text}\n")
    with pytest.raises(AgentError) as caught:
        load(paths, {})
    assert caught.value.status == BAD_CONFIG
    assert says in caught.value.message
    assert caught.value.message.startswith(f"{paths.config_file}:2: node.")
