"""The rooms of the house: who may import whom, and that the map in ARCHITECTURE.md says the same.

A room is a folder, or the files of one that stand on another floor than the rest. Rooms are listed
from the ground up, and each may import only rooms above it in the list, of them only those that its
row names. So there is no circle of rooms; there is none of files either.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

from tests.support.import_graph import circles, folder_of, grouped, import_graph
from tests.support.sources import nodes

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("gossip", "edge_apps", "agent")

ROOMS = {
    "gossip/core": "",
    "gossip/membership/model": "core",
    "gossip/membership/network": "core",
    "gossip/membership/dissemination": "core model",
    "gossip/membership/members": "core model network",
    "gossip/membership/detection": "core model network dissemination members",
    "gossip/membership/anti_entropy": "core model detection",
    "gossip/events": "core model dissemination",
    "gossip/membership": "core SWIM",
    "gossip/registry": "core",
    "gossip/kv": "core registry",
    "gossip/bodies": "core",
    "gossip/consensus": "core",
    "gossip/control": "core registry consensus",
    "gossip node": "core SWIM events membership registry kv control",
    "gossip/sim": "GOSSIP",
    "gossip/sim/script": "GOSSIP sim",
    "edge_apps sdk": "core",
    "edge_apps/builtin": "sdk",
    "edge_apps loader": "core sdk builtin",
    "agent ground": "core",
    "agent/text": "sdk",
    "agent/files": "ground",
    "agent/config": "ground text files sdk core model",
    "agent/loop": "ground config core",
    "agent/system": "ground text loop core",
    "agent/identity": "BASE core registry",
    "agent/store": "BASE identity core model registry kv consensus",
    "agent/net": "BASE identity core registry node",
    "agent/runtime": "BASE net store GOSSIP",
    "agent/programs": "BASE",
    "agent/cluster": "BASE identity store runtime programs GOSSIP",
    "agent/backup": "BASE kv bodies",
    "agent/blocks": "BASE runtime cluster core bodies kv",
    "agent/access": "BASE store cluster core control",
    "agent/keys": "BASE identity cluster core kv node",
    "agent/telemetry": "BASE store sdk core",
    "agent/telemetry/uplink": "BASE store telemetry sdk",
    "agent/admission": (
        "BASE identity store net runtime access keys telemetry cluster core registry kv control"
    ),
    "agent/apps": "BASE identity programs builtin loader core",
    "agent/installation": "BASE identity programs",
    "agent/doctor": "BASE identity store net runtime programs SUBJECTS installation APPS GOSSIP",
    "agent/http": "",
    "agent/api": "BASE identity net programs SUBJECTS doctor http sdk GOSSIP",
    "agent roof": "BASE identity store net runtime programs SUBJECTS doctor api GOSSIP",
    "agent/cli": "BASE identity store SUBJECTS installation doctor roof sdk loader core sim",
    "agent/cli/demo": "BASE installation uplink sdk",
}
"""Each room with what it may import. The name of a room is the last word or folder of its key."""

GROUPS = {
    "SWIM": "model network dissemination members detection anti_entropy",
    "GOSSIP": "core SWIM events membership registry kv bodies consensus control node",
    "APPS": "sdk builtin loader",
    "BASE": "ground text files config loop system",
    "SUBJECTS": "cluster backup blocks access keys telemetry uplink admission apps",
}
"""Names for several rooms; a room that is in one of its own leaves itself out."""

STAND_ELSEWHERE = {
    "agent/__init__.py": "ground",
    "agent/__main__.py": "cli",
    "agent/_version.py": "ground",
    "agent/exits.py": "ground",
    "agent/metrics.py": "ground",
    "agent/readiness.py": "ground",
    "edge_apps/__main__.py": "loader",
    "edge_apps/loader.py": "loader",
}
"""Files on another floor than their folder, where the folder has two rooms."""

MAIN_ROOMS = {"gossip": "node", "edge_apps": "sdk", "agent": "roof"}
"""Which room the other files of such a folder are in."""

SAME_FILE_NAMES = {
    "messages": "what members say to each other, once a protocol",
    "errors": "what goes wrong, once a room",
    "plane": "the wiring of one protocol of the gossip",
    "outbound": "where the parts of one protocol leave what is to be sent",
    "server": "who answers, once a protocol",
    "service": "what a room offers to the rest of the agent",
    "interfaces": "network interfaces; and what the API needs of an agent",
    "merge": "of what members say; of two registries",
    "node": "a whole node; and its entry in the registry",
    "requests": "what is asked of a plane; and the simulator's record of it",
    "storage": "what is on disk of one protocol, and the changes by which it gets there",
    "suggestions": "what was meant by a mistyped name: the rule, and who asks the agent",
    "tuning": "intervals and limits: of the gossip; of a Raft group",
    "tokens": "what a token is, and how an issuer keeps its own",
}
"""Names of files that may occur twice inside a package, beside a subject's own, see below."""

SUBJECT_ROOMS = {"api", "cli"}
"""A subject has one file under its own name in each of these, and may have one in its own room."""

MAP_LINES_MAX = 200

TABLE_ROW = re.compile(r"^\| `(\w[\w/]*)/`(?: (\w+))? \|(.+)\|$", re.MULTILINE)


def _short(key: str) -> str:
    return re.split(r"[/ ]", key)[-1]


def _words(text: str) -> Iterator[str]:
    """Yield the names of rooms in a list of rooms and groups."""
    for word in text.split():
        if word in GROUPS:
            yield from _words(GROUPS[word])
        else:
            yield word


ALLOWED = {_short(key): set(_words(text)) - {_short(key)} for key, text in ROOMS.items()}
FOLDERS = {re.split(" ", key)[0]: _short(key) for key in ROOMS if " " not in key} | MAIN_ROOMS


@cache
def _graph() -> dict[str, set[str]]:
    return import_graph(ROOT, PACKAGES)


def _room_of(file: str) -> str:
    return STAND_ELSEWHERE.get(file) or FOLDERS.get(folder_of(file), f"no room: {folder_of(file)}")


@cache
def _rooms() -> dict[str, str]:
    """Return the room of each file."""
    return {file: _room_of(file) for file in _graph()}


def arrows_up(allowed: Mapping[str, set[str]]) -> list[str]:
    """Return the permissions that lead to a room which is not listed before."""
    rooms = list(allowed)
    return [
        f"{room} may import {target}"
        for index, (room, targets) in enumerate(allowed.items())
        for target in sorted(targets)
        if target not in rooms[:index]
    ]


def trespasses(
    graph: Mapping[str, set[str]], room_of: Mapping[str, str], allowed: Mapping[str, set[str]]
) -> list[str]:
    """Return the imports into rooms that the importing file's room may not import."""
    return [
        f"{file} ({room_of[file]}) imports {target} ({room_of[target]})"
        for file in sorted(graph)
        for target in sorted(graph[file])
        if room_of[file] != room_of[target]
        and room_of[target] not in allowed.get(room_of[file], set())
    ]


def idle_permissions(rooms: Mapping[str, set[str]], allowed: Mapping[str, set[str]]) -> list[str]:
    """Return the permissions by which nothing is imported, of those that name a single room."""
    return [
        f"{room} may import {target}, and does not"
        for room, targets in allowed.items()
        for target in sorted(targets - rooms.get(room, set()))
    ]


def twice(named: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the names that stand in several places, of pairs of name and place."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, place in named:
        places[name].append(place)
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def same_file_names(files: Iterable[str]) -> dict[str, list[str]]:
    """Return names of files that occur twice, and are neither excused nor those of a subject."""
    found = twice((PurePosixPath(file).stem, folder_of(file)) for file in files)
    return {
        name: folders
        for name, folders in found.items()
        if name not in {*SAME_FILE_NAMES, "__init__", "__main__"}
        and len([each for each in folders if _short(each) not in SUBJECT_ROOMS]) > 1
    }


def table_rows(page: str) -> list[tuple[str, str]]:
    """Return the rooms in a page's table, in its order, each with the words it may import."""
    return [
        (f"{folder} {name}" if name else folder, cells.split("|")[1].strip(" —"))
        for folder, name, cells in TABLE_ROW.findall(page)
    ]


def _classes(package: str) -> Iterator[tuple[str, str]]:
    for file in sorted(_graph()):
        if file.startswith(f"{package}/"):
            for node in nodes(ROOT / file):
                if isinstance(node, ast.ClassDef):
                    yield node.name, file


def test_rooms_have_different_names() -> None:
    assert len(ALLOWED) == len(ROOMS)


def test_permissions_point_down() -> None:
    assert not arrows_up(ALLOWED)


def test_every_import_is_permitted() -> None:
    strangers = trespasses(_graph(), _rooms(), ALLOWED)
    assert not strangers, "\n".join(strangers)


def test_no_permission_is_idle() -> None:
    """A permission that names one room and is not used says something that is not so."""
    singly = {
        _short(key): {word for word in text.split() if word not in GROUPS}
        for key, text in ROOMS.items()
    }
    assert not idle_permissions(grouped(_graph(), _rooms()), singly)


def test_no_circle_of_files() -> None:
    assert not circles(_graph())


def test_no_circle_of_rooms() -> None:
    assert not circles(grouped(_graph(), _rooms()))


def test_every_folder_is_a_room_and_every_room_a_folder() -> None:
    assert sorted({folder_of(file) for file in _graph()}) == sorted(FOLDERS)
    assert not [file for file in STAND_ELSEWHERE if file not in _graph()]
    assert set(_rooms().values()) == set(ALLOWED)


def test_the_map_has_every_room_with_what_it_may_import() -> None:
    rows = table_rows((ROOT / "ARCHITECTURE.md").read_text())
    assert dict(rows) == ROOMS
    assert [room for room, _ in rows] == list(ROOMS), "from the ground up, as in the test"


def test_the_map_says_where_to_begin() -> None:
    """The last column names a file of the room."""
    for folder, name, cells in TABLE_ROW.findall((ROOT / "ARCHITECTURE.md").read_text()):
        [first] = re.findall(r"`([\w.]+)`", cells.split("|")[-1])
        assert f"{folder}/{first}" in _graph()
        assert _rooms()[f"{folder}/{first}"] == (name or _short(folder)), f"{folder}/{first}"


def test_the_map_names_no_ghosts() -> None:
    """A file may be named by the end of its path, where the room is plain from what is around."""
    named = set(re.findall(r"\b[\w/]+\.py\b", (ROOT / "ARCHITECTURE.md").read_text()))
    paths = [f"/{file}" for file in _graph()]
    house = {name for name in named if name.startswith("tests/")}
    assert not [name for name in named - house if not any(p.endswith(f"/{name}") for p in paths)]


def test_the_map_fits_into_one_sitting() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= MAP_LINES_MAX


@pytest.mark.parametrize("package", PACKAGES)
def test_no_class_name_occurs_twice_in_a_package(package: str) -> None:
    assert not twice(_classes(package))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_name_occurs_twice_in_a_package(package: str) -> None:
    assert not same_file_names(file for file in _graph() if file.startswith(f"{package}/"))


def test_every_excused_file_name_is_needed() -> None:
    in_packages = [
        twice((PurePosixPath(f).stem, f) for f in _graph() if f.startswith(f"{package}/"))
        for package in PACKAGES
    ]
    assert not [name for name in SAME_FILE_NAMES if not any(name in each for each in in_packages)]


# That each of these checks sees its fault.


def test_a_circle_of_files_is_seen() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"a"}}) == [["a"]]
    assert circles({"a": {"b"}, "b": set(), "c": {"a", "b"}}) == []


def test_a_circle_of_rooms_without_one_of_files_is_seen() -> None:
    graph = {"x/one": {"y/one"}, "y/one": set(), "y/two": {"x/one"}}
    rooms = grouped(graph, {"x/one": "x", "y/one": "y", "y/two": "y"})
    assert circles(graph) == []
    assert circles(rooms) == [["x", "y"]]


def test_an_arrow_up_is_seen() -> None:
    assert arrows_up({"ground": set(), "roof": {"ground"}}) == []
    assert arrows_up({"ground": {"roof"}, "roof": set()}) == ["ground may import roof"]
    assert arrows_up({"roof": {"cellar"}}) == ["roof may import cellar"], "there is no such room"


def test_an_import_without_permission_is_seen() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": set()}
    allowed: dict[str, set[str]] = {"ground": set(), "roof": {"ground"}}
    assert trespasses(graph, {"a": "roof", "b": "ground", "c": "ground"}, allowed) == []
    found = trespasses(graph, {"a": "roof", "b": "ground", "c": "roof"}, allowed)
    assert found == ["b (ground) imports c (roof)"]
    assert trespasses(graph, {"a": "roof", "b": "no room: x", "c": "no room: x"}, allowed)


def test_an_idle_permission_is_seen() -> None:
    assert idle_permissions({"roof": {"ground"}}, {"roof": {"ground", "net"}}) == [
        "roof may import net, and does not"
    ]


def test_late_imports_and_those_for_types_are_seen(tmp_path: Path) -> None:
    package = tmp_path / "agent"
    package.mkdir()
    for name, text in {
        "late.py": "def f():\n    from agent import low\n",
        "typed.py": "if TYPE_CHECKING:\n    from agent.low import Thing\n",
        "whole.py": "import agent.low\n",
        "low.py": "import json\n",
    }.items():
        (package / name).write_text(text)
    low = {"agent/low.py"}
    assert import_graph(tmp_path, ["agent"]) == {
        "agent/late.py": low, "agent/typed.py": low, "agent/whole.py": low, "agent/low.py": set(),
    }  # fmt: skip


def test_equal_names_are_seen() -> None:
    assert twice([("Post", "a.py"), ("Post", "b.py"), ("Roll", "a.py")]) == {
        "Post": ["a.py", "b.py"]
    }
    assert same_file_names(["agent/net/keys.py", "agent/store/keys.py"])
    assert not same_file_names(["agent/cluster/kv.py", "agent/api/kv.py", "agent/cli/kv.py"])
    assert not same_file_names(["agent/net/errors.py", "agent/store/errors.py"])


def test_rows_of_the_map_are_read() -> None:
    page = "| `gossip/kv/` | keys | core registry | reads a clock | `plane.py` |\n"
    page += "| `agent/` roof | the agent | — | thinks | `agent.py` |\n| room | noun | x | y | z |\n"
    assert table_rows(page) == [("gossip/kv", "core registry"), ("agent roof", "")]
