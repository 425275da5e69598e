"""``covey db query``: tables, JSON and tab-separated lines of what is in a node's files."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent import exits
from agent.config.paths import Paths
from tests.support.command_line import Covey


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Give the places of a node, with a table of each kind of value in its ``data.db``."""
    found = Paths.find(tmp_path)
    found.create()
    with closing(sqlite3.connect(found.data_db)) as connection, connection:
        connection.execute("CREATE TABLE t (i INTEGER, f REAL, s TEXT, b BLOB, n)")
        row = (2**62, 0.1 + 0.2, "a\tb\x1b[2J", bytes(range(40)), None)
        connection.execute("INSERT INTO t VALUES (?, ?, ?, ?, ?)", row)
        connection.execute("INSERT INTO t VALUES (1, 1.5, 'x', x'00ff', NULL)")
    return found


def test_a_table_in_a_pipe_has_no_header_and_tsv_has_one(covey: Covey, paths: Paths) -> None:
    outcome = covey("db", "query", "SELECT i, f, s, b, n FROM t")
    assert outcome.status == exits.YES
    first, second = (line.split("\t") for line in outcome.stdout.splitlines())
    assert first[:3] == [str(2**62), "0.30000000000000004", r"a\tb\x1b[2J"]
    assert first[3].startswith("x'000102")
    assert first[3].endswith("40 bytes")
    assert second == ["1", "1.5", "x", "x'00ff'", "-"]
    told = covey("db", "query", "SELECT i AS number, s FROM t", "-o", "tsv")
    assert told.stdout.splitlines()[0] == "number\ts"
    assert "\x1b" not in outcome.stdout + told.stdout


def test_json_has_exact_values(covey: Covey, paths: Paths) -> None:
    first, second = covey("db", "query", "SELECT * FROM t", "-o", "json").json()
    assert (first["i"], first["f"], first["s"]) == (2**62, 0.1 + 0.2, "a\tb\x1b[2J")
    assert second["b"] == {"$base64": True, "encoded": "AP8="}
    assert second["n"] is None


def test_what_is_more_than_the_limit_is_said(covey: Covey, paths: Paths) -> None:
    outcome = covey("db", "query", "SELECT i FROM t", "--limit", "1")
    assert len(outcome.stdout.splitlines()) == 1
    assert "There is more than the first 1 row;" in outcome.stderr


def test_what_writes_is_refused_and_another_file_is_another_option(
    covey: Covey, paths: Paths
) -> None:
    outcome = covey("db", "query", "DELETE FROM t")
    assert (outcome.status, outcome.stdout) == (exits.NOT_PERMITTED, "")
    assert covey("db", "query", "SELECT 1", "--db", "audit").status == exits.NOT_FOUND
    assert covey("db", "query", "SELECT 1", "--db", "identity").status == exits.USAGE
    with closing(sqlite3.connect(paths.audit_db)) as connection, connection:
        connection.execute("CREATE TABLE entries (who)")
    assert covey("db", "query", "SELECT count(*) FROM entries", "--db", "audit").stdout == "0\n"
