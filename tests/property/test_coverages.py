"""Laws of coverages: what is computed on intervals is what sets of dots say."""

from hypothesis import given
from hypothesis import strategies as st

from gossip.kv.coverages import difference, in_at_least, size_of, union
from gossip.kv.dots import Coverage, Dot, PartitionClock
from gossip.kv.watch_token import decode_token, encode_token, watched_mark

DOTS = st.frozensets(st.tuples(st.integers(1, 3), st.integers(1, 12)), max_size=25)


def of(dots: frozenset[Dot]) -> Coverage:
    clock = PartitionClock()
    clock.add(dots)
    return clock.coverage()


@given(DOTS, DOTS)
def test_differences_are_those_of_sets(some: frozenset[Dot], others: frozenset[Dot]) -> None:
    left = difference(of(some), PartitionClock(of(others)))
    assert left == of(some - others)
    assert size_of(left) == len(some - others)


@given(st.lists(DOTS, max_size=4), st.integers(1, 4))
def test_what_so_many_cover_is_counted(all_dots: list[frozenset[Dot]], count: int) -> None:
    every = frozenset().union(*all_dots)
    often = frozenset(dot for dot in every if sum(dot in dots for dots in all_dots) >= count)
    assert in_at_least(count, map(of, all_dots)) == of(often)
    assert union(map(of, all_dots)) == of(every)


@given(st.dictionaries(st.integers(0, 9), DOTS.map(of)))
def test_a_token_gives_back_its_clocks(clocks: dict[int, Coverage]) -> None:
    mark = watched_mark("room/", is_prefix=True)
    assert decode_token(encode_token(mark, clocks), mark) == clocks
