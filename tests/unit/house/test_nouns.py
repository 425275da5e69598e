"""Classes are named by nouns that a reader knows: from our glossary, the field, or school.

A noun that is in none of the three lists is a word of one author's: find the field's word, or give
the new one a row in GLOSSARY.md.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.support.import_graph import import_graph
from tests.support.sources import nodes

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("gossip", "edge_apps", "agent")

OF_THE_FIELD = {
    "SWIM (Das 2002)": "ack ping probe suspect suspicion swim",
    "Lifeguard (Dadgar 2017)": "awareness nack",
    "Vivaldi (Dabek 2004)": "rtt sample vivaldi",
    "memberlist, Serf": "alive dead left hello query response merge",
    "Merkle trees, Scuttlebutt, Riak": "bucket clock delta digest entry sync handoff",
    "MQTT 5, paho": "broker client publisher session subscribe subscription unsubscribe",
    "Raft (Ongaro and Ousterhout 2014)": "append configuration election entry heartbeat raft",
    "Raft, told otherwise": "leadership lookup proposal",
    "Raft's other words": "chunk index reconfiguration replication round sender snapshot transfer",
    "Raft's figure 3": "completeness matching quorum safety",
    "RFC 5116, RFC 5280, RFC 6479": "aead authority certificate credential key suite trust window",
    "msgspec, h11": "codec malformed",
    "HTTP (RFC 9110), ASGI": "disconnect exchange parameter route",
    "systemd": "notifier credential",
    "Prometheus": "counter gauge metric",
    "RFC 6762": "mdn",
    "SQLite": "commit migration row section statement table",
    "WebSocket's ping and pong": "pong",
    "databases": "command get put delete list read write scan fetch watch store storage transact",
    "etcd, ZooKeeper, Chubby": "restore barrier compare holder lock range waiter watcher",
}
"""Words of papers, RFCs and programs that everybody in the field has used, by their origin."""

FROM_SCHOOL = """
absence actor address advice announcement answer arrival ask attempt authorization backoff blame
body budget buffer cell change checker climate collector condition config connection content copy
database death detection detector discovery disk dispatcher duration emit end endpoint error
estimate experiment facade failure fallback fault file filler fleet flight formatter forward
forwarder greenhouse greeting group harness header id identity input interface judge kernel kind kv
launch
letter life line link listener listing live log mark membership memory message moment name network
note notice offer operation order outcome overrun pace packet page pair part persist phase place
plan problem process progress protocol queue reason receipt recorder removal renewal reply report
request result resumption resurrection revocation schedule scheduler scorer screen search server set
setting setup signal slot socket source speaker stamp start starter stat state status step summary
supervisor system telemetry template term terminal test text thread throttle timekeeper trouble
tuning user value version violation welcome wobble workload
applier delay directory draft field history image mirror operator prefix pull relation saver space
timer application cause move signature share increment number choice bound total
push reader span writer service confirm confirmation drop sweeper upkeep
position rule need class
"""
"""Plain words, and those that every programmer has used."""

PARTICIPLES = """
accepted adopted changed completed delivered detected ended exceeded fetched following forbidden
forged forked forwarded found granted invented issued lost measured named opened placeable raised
reached ready received refused rejected renewed replayed reported revoked runnable scanned shown
spared spoken started stored styled superseded synced taken timed unreachable unusable waiting
checked committed confirmed declined doubted failed halted installed ordered overloaded placed seen
broken held written
"""
"""What has become of something: events, outcomes, errors."""

NO_NOUN = {
    "AgentTimedOut": "an error, told as a sentence",
    "CommittedStays": "an invariant, told as a sentence",
    "Here": "where this node is",
    "IncarnationGrows": "an invariant, told as a sentence",
    "LogDamaged": "an error, told as a sentence",
    "NotEncodedSo": "an error, told as a sentence",
    "NotHeld": "an error, told as a sentence",
    "NotLeader": "an error, told as a sentence",
    "NotPutThrough": "an error, told as a sentence",
    "RegistryIsKept": "an invariant, told as a sentence",
    "SetAside": "an error, by the glossary's words",
    "TimeoutNow": "a message, by the paper's name",
    "TooLarge": "an error, told as a sentence",
    "PersistBeforeReveal": "an invariant, by its name",
    "QuorumsIntersect": "an invariant, told as a sentence",
    "ReadsAreFresh": "an invariant, told as a sentence",
    "KeyMissing": "an error, told as a sentence",
    "ValueBroken": "an error, told as a sentence",
    "SealBroken": "an error, told as a sentence",
    "WordsAreTheirOwn": "an invariant, told as a sentence",
    "WouldLose": "an error, told as a sentence",
}
"""Classes that are no things."""


def noun_of(name: str) -> str:
    """Return the last word of a class's name: lower case, in the singular."""
    return _singular(re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*", name)[-1].lower())


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > len("dies"):
        return f"{word[:-3]}y"
    if word.endswith(("ches", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) else word


def nouns_in(glossary: str) -> set[str]:
    """Return the last word of each entry, and the whole entry as one word: hand-off, handoff."""
    entries = re.findall(r"^\| \*\*([^*]+)\*\*", glossary, re.MULTILINE)
    last = {re.split(r"[ -]", entry)[-1].lower() for entry in entries}
    return {_singular(word) for word in last | {re.sub(r"[ -]", "", e).lower() for e in entries}}


def unknown(classes: Iterable[str], known: set[str]) -> list[str]:
    """Return the classes whose noun nobody knows."""
    return sorted(name for name in classes if noun_of(name) not in known and name not in NO_NOUN)


def _classes() -> Iterator[str]:
    for file in import_graph(ROOT, PACKAGES):
        for node in nodes(ROOT / file):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name


def test_classes_are_named_by_nouns_that_a_reader_knows() -> None:
    glossary = nouns_in((ROOT / "GLOSSARY.md").read_text())
    field = set(" ".join(OF_THE_FIELD.values()).split())
    school = set(FROM_SCHOOL.split()) | set(PARTICIPLES.split())
    assert not unknown(_classes(), glossary | field | school)


def test_the_names_without_noun_are_there() -> None:
    assert set(NO_NOUN) <= set(_classes())


def test_a_word_of_ones_own_is_seen() -> None:
    glossary = nouns_in("| **member list** | x |\n| **hand-off** | y |\n| **dot** | z |\n")
    assert glossary >= {"list", "handoff", "dot"}
    assert unknown(["MemberList", "Handoff", "SeenDots", "Hearsay"], glossary) == ["Hearsay"]
    assert [noun_of(name) for name in ("Replicas", "LargeBodies", "UDPStatus", "Watches")] == [
        "replica", "body", "status", "watch",
    ]  # fmt: skip
