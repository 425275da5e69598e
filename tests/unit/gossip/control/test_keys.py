"""The keys in their order: prefixes, sessions, and what they take."""

from hypothesis import given
from hypothesis import strategies as st

from gossip.control.bounds import ENTRY_BYTES, Space
from gossip.control.keys import KeyChange, KeyEntry, KeyTable, next_prefix

TEXTS = st.text(alphabet="ab/\x00\u07ff\U0010ffff", max_size=3)


def table_of(*names: str) -> KeyTable:
    table = KeyTable(Space(), lambda _change: None)
    for number, name in enumerate(names, 1):
        table.put(KeyEntry(name, b"", number, number, 1))
    return table


def test_names_are_in_order_and_after_a_place() -> None:
    table = table_of("b", "a/2", "a", "a/1", "c")
    assert list(table.names("")) == ["a", "a/1", "a/2", "b", "c"]
    assert list(table.names("a/")) == ["a/1", "a/2"]
    assert list(table.names("a/", after="a/1")) == ["a/2"]
    assert list(table.names("a/", after="z")) == []
    assert list(table.names("b", after="a")) == ["b"]


@given(st.sets(TEXTS.filter(bool)), TEXTS, TEXTS)
def test_prefixes_are_what_str_says(names: set[str], prefix: str, after: str) -> None:
    table = table_of(*names)
    wanted = sorted(name for name in names if name.startswith(prefix))
    assert list(table.names(prefix)) == wanted
    assert table.count(prefix) == len(wanted)
    assert list(table.names(prefix, after)) == [name for name in wanted if name > after]


@given(TEXTS, TEXTS)
def test_the_next_prefix_is_after_all_that_begin_so(prefix: str, rest: str) -> None:
    end = next_prefix(prefix)
    assert end is None or prefix + rest < end
    assert sorted(["a\ud7ff", "a\ue000"], key=str.encode) == ["a\ud7ff", "a\ue000"]


def test_space_and_sessions_follow_what_is_there() -> None:
    space = Space()
    changes: list[KeyChange] = []
    table = KeyTable(space, changes.append)
    table.put(KeyEntry("k", b"12345", 1, 1, 1, session=9))
    assert space.used_bytes == ENTRY_BYTES + 6
    assert table.of_session(9) == ["k"]
    table.put(KeyEntry("k", b"", 1, 2, 2))
    assert space.used_bytes == ENTRY_BYTES + 1
    assert table.of_session(9) == []
    table.delete("k")
    assert space.used_bytes == 0
    assert not len(table)
    assert [change.entry is not None for change in changes] == [True, True, False]
