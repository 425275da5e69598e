"""Queries: answered by whoever is meant, counted by the asker."""

import math

import msgspec
import pytest

from gossip.core.errors import InvalidRequest
from gossip.core.tuning import LAN
from gossip.events.messages import (
    EVENT_FRAMES,
    SHORT_ANSWER_BYTES_MAX,
    LongQueryResponse,
    Query,
    QueryResponse,
    ResponseKind,
)
from gossip.events.queries import QueryEnded, QueryReceived, ResponseReceived
from tests.support.events_net import answering, ask, formed, told
from tests.support.membership_solo import MY_BOOT, Solo, said, where

# ---- queries


def test_everybody_is_asked_and_answers() -> None:
    net = formed(9)
    answering(net)
    number = ask(net, 4, "where")
    net.run(2)
    answers = told(net, ResponseReceived, 4)
    assert {one.responder for one in answers} == set(net.ids)
    assert {one.payload for one in answers} == {b"here"}
    assert told(net, QueryEnded, 4) == [QueryEnded(number, 9, 9, ())]
    assert all(len(told(net, QueryReceived, index)) == 1 for index in net.swims)


def test_only_those_meant_are_asked() -> None:
    net = formed(5)
    answering(net)
    ask(net, 0, "where", tags={"index": "3"})
    net.run(2)
    assert [one.responder for one in told(net, ResponseReceived, 0)] == [net.ids[3]]
    assert not told(net, QueryReceived, 1)
    [end] = told(net, QueryEnded, 0)
    assert (end.answered, end.expected) == (1, 1)


def test_a_query_that_means_nobody_ends_at_once() -> None:
    net = formed(3)
    number = ask(net, 0, "where", tags={"index": "77"})
    assert told(net, QueryEnded, 0) == [QueryEnded(number, 0, 0, ())]


def test_who_did_not_answer_is_named_when_the_time_is_over() -> None:
    net = formed(5)
    answering(net, 2)
    ask(net, 0, "where", timeout_s=3.0)
    net.run(2.9)
    assert not told(net, QueryEnded, 0)
    net.run(0.2)
    [end] = told(net, QueryEnded, 0)
    assert (end.answered, end.expected, end.missing) == (4, 5, (net.ids[2],))


@pytest.mark.parametrize("count", [9, pytest.param(30, marks=pytest.mark.slow)])
def test_loss_stops_no_answer(count: int) -> None:
    net = formed(count, seed=3, loss=0.3)
    answering(net)
    for index in range(6):
        ask(net, index, "where")
        net.run(6)
        alive_then = net.swims[index].members.live
        [end] = told(net, QueryEnded, index)
        assert end.answered == end.expected >= len(alive_then) - 2, end


def test_an_answer_finds_a_way_around_a_cut() -> None:
    net = formed(5)
    answering(net)
    net.cut = {(3, 0)}
    ask(net, 0, "where")
    net.run(4)
    [end] = told(net, QueryEnded, 0)
    assert (end.answered, end.expected) == (5, 5)


def test_a_long_answer_takes_a_stream() -> None:
    net = formed(3)
    answering(net, payload=b"x" * 20_000)
    ask(net, 0, "log")
    net.run(2)
    assert [len(one.payload) for one in told(net, ResponseReceived, 0)] == [20_000] * 3


def test_receipts_end_the_repetitions() -> None:
    net = formed(5)
    answering(net)
    ask(net, 0, "where", timeout_s=30.0)
    net.run(20)
    assert sum(swim.counts["query_responses/repeated"] for swim in net.swims.values()) == 0


def test_a_query_is_handled_once_however_often_it_is_told() -> None:
    solo = Solo(2)
    query = Query(2, 1, 1, "where", b"", {}, 2000)
    for _ in range(5):
        solo.hear(2, query)
    solo.drain()
    [asked] = [one for one in solo.events if isinstance(one, QueryReceived)]
    solo.swim.with_delegate(
        lambda f: f.answer(asked.key, ResponseKind.ANSWERED, b"", solo.now), solo.now
    )
    assert not solo.swim.with_delegate(
        lambda f: f.answer(asked.key, ResponseKind.ANSWERED, b"", solo.now), solo.now
    )
    sent = solo.run(10.0)
    assert 1 < len(said(sent, QueryResponse, to=where(2))) <= 4
    solo.hear(2, query)
    solo.drain()
    assert not [one for one in solo.events if isinstance(one, QueryReceived)]


def test_a_late_answer_is_not_given() -> None:
    solo = Solo(2)
    solo.hear(2, Query(2, 1, 1, "where", b"", {}, 2000))
    solo.run(2.5)
    assert solo.swim.counts["queries_ended/not handled in time"] == 1
    key = (2, 1, 1)
    late = solo.swim.with_delegate(
        lambda f: f.answer(key, ResponseKind.ANSWERED, b"", solo.now), solo.now
    )
    assert late is False


def test_strangers_and_forgers_get_nowhere() -> None:
    solo = Solo(2, 3)
    solo.hear(2, Query(9, 1, 1, "where", b"", {}, 2000))
    assert solo.swim.counts["queries_ignored/unknown asker"] == 1
    number = solo.swim.with_delegate(lambda f: f.ask("where", b"", {}, 5.0, solo.now), solo.now)
    solo.drain()
    answer = QueryResponse(1, MY_BOOT, number, 9, ResponseKind.ANSWERED, b"")
    solo.hear(2, answer)  # of somebody who is no member
    solo.hear(2, msgspec.structs.replace(answer, responder=2, number=99))
    solo.hear(2, msgspec.structs.replace(answer, responder=2, boot=1))
    solo.drain()
    assert not [one for one in solo.events if isinstance(one, ResponseReceived)]
    # Only the responder's own packet is passed on, so that nothing goes in circles.
    solo.hear(2, QueryResponse(3, 1, 1, 7, ResponseKind.ANSWERED, b""))
    assert not said(solo.drain(), QueryResponse)
    solo.hear(2, QueryResponse(3, 1, 1, 2, ResponseKind.ANSWERED, b""))
    assert said(solo.drain(), QueryResponse, to=where(3))


def test_a_flood_of_queries_is_bounded() -> None:
    solo = Solo(2)
    for number in range(3000):
        solo.hear(2, Query(2, 1, number, "where", b"", {}, 60_000))
    queries = solo.swim.delegate._queries
    assert len(queries._answering) == LAN.queries_max
    assert len(queries._remembered) <= 1024


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, LAN.query_timeout_max_s + 1, math.nan])
def test_senseless_waits_are_refused(timeout_s: float) -> None:
    solo = Solo(2)
    with pytest.raises(InvalidRequest):
        solo.swim.with_delegate(lambda f: f.ask("where", b"", {}, timeout_s, solo.now), solo.now)


def test_nobody_speaks_while_leaving() -> None:
    solo = Solo(2)
    solo.swim.leave(solo.now)
    with pytest.raises(InvalidRequest):
        solo.swim.with_delegate(lambda f: f.send_event("x", b"", solo.now), solo.now)


def test_a_long_answer_is_repeated_until_the_receipt() -> None:
    solo = Solo(2)
    solo.hear(2, Query(2, 1, 1, "log", b"", {}, 10_000))
    payload = b"x" * (SHORT_ANSWER_BYTES_MAX + 1)
    key = (2, 1, 1)
    solo.swim.with_delegate(
        lambda f: f.answer(key, ResponseKind.ANSWERED, payload, solo.now), solo.now
    )
    assert solo.swim.delegate._queries._answering[key].given is not None
    solo.hear(2, QueryResponse(2, 1, 1, 1, ResponseKind.RECEIPT, b""))
    assert key not in solo.swim.delegate._queries._answering
    assert LongQueryResponse(*key, payload) == EVENT_FRAMES.decode(
        EVENT_FRAMES.encode(LongQueryResponse(*key, payload))
    )
