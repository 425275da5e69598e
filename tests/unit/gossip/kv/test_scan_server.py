"""Scans: all is found, in order, a few partitions at a time, and no more is kept than fits."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from gossip.kv.limits import PAGE_BYTES_MAX, SCAN_STEP_PARTITIONS, SCANS_MAX
from gossip.kv.messages import Scan
from gossip.kv.requests import List, ListResult, Put
from tests.support.kv_net import Net, registry_of

PARTITIONS = 64


def filled(keys: list[str], size_bytes: int = 10, nodes: tuple[int, ...] = (1,)) -> Net:
    net = Net(registry_of(nodes, partitions=PARTITIONS, replicas=len(nodes)))
    for key in keys:
        net.submit(1, Put(key, bytes(size_bytes)))
    net.run(5)
    return net


def listed(net: Net, limit: int, prefix: str = "") -> tuple[list[str], int]:
    """Return all keys that pages of so many bring, and how many pages it took."""
    keys: list[str] = []
    after, pages = "", 0
    while True:
        page = net.ask(1, List(prefix, after, limit))
        assert isinstance(page, ListResult)
        assert page.outcome == "ok"
        keys += [entry.key for entry in page.entries]
        after, pages = page.next, pages + 1
        if not after:
            return keys, pages


def watch_steps(net: Net) -> list[int]:
    """Return a list to which each input of node 1 adds how many partitions were read in it."""
    plane = net.planes[1]
    steps = [0]
    scan, wake = plane.replica.scan, plane.wake

    def counted(*arguments: Any) -> Any:
        steps[-1] += 1
        return scan(*arguments)

    def woken(now: float) -> None:
        steps.append(0)
        wake(now)
        steps.append(0)

    plane.replica.scan = counted  # type: ignore[method-assign, assignment]
    plane.wake = woken  # type: ignore[method-assign]
    return steps


@pytest.mark.parametrize("nodes", [(1,), (1, 2, 3)])
@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
def test_pages_of_any_size_bring_every_key_once_and_in_order(
    nodes: tuple[int, ...], limit: int
) -> None:
    rng = random.Random(limit)
    keys = sorted({f"{rng.choice('ab')}/{rng.randrange(10**6)}" for _ in range(150)})
    net = filled(keys, nodes=nodes)
    assert listed(net, limit)[0] == keys
    assert listed(net, limit, "b/")[0] == [key for key in keys if key.startswith("b/")]


@pytest.mark.interpreted
def test_a_scan_reads_a_few_partitions_in_one_go() -> None:
    net = filled([f"k{number:04d}" for number in range(500)])
    steps = watch_steps(net)
    assert len(listed(net, 1000)[0]) == 500
    assert max(steps) <= SCAN_STEP_PARTITIONS
    assert sum(steps) >= PARTITIONS


def test_keys_that_crowd_in_one_partition_are_all_found() -> None:
    registry = registry_of((1,), partitions=PARTITIONS, replicas=1)
    crowd = [f"k{n}" for n in range(6000) if registry.partition_of(f"k{n}") == 3]
    assert len(crowd) > 50
    assert listed(filled(crowd), 1000)[0] == sorted(crowd)


@pytest.mark.interpreted
def test_an_answer_fits_a_frame_and_what_does_not_fit_is_not_kept() -> None:
    keys = [f"k{number:03d}" for number in range(100)]
    net = filled(keys, PAGE_BYTES_MAX // 10)
    kept: list[int] = []
    plane = net.planes[1]
    wake: Callable[[float], None] = plane.wake

    def woken(now: float) -> None:
        wake(now)
        kept.extend(len(scan.found) for scan in plane.scanning._open)

    plane.wake = woken  # type: ignore[method-assign]
    found, pages = listed(net, 1000)
    assert found == keys
    assert pages >= 10
    assert max(kept) <= 11


def test_a_change_of_who_owns_what_begins_the_scan_again() -> None:
    net = filled([f"k{number}" for number in range(100)])
    plane = net.planes[1]
    number = plane.submit(List(limit=1000), net.now)
    (begun,) = plane.scanning._open
    assert begun.found
    begun.epoch -= 1  # as if another registry had been adopted since
    plane.wake(net.now)
    (again,) = plane.scanning._open
    assert again is not begun
    assert len(again.left) == PARTITIONS - SCAN_STEP_PARTITIONS
    net.settle(1)
    net.run(3)
    result = net.results[1, number]
    assert isinstance(result, ListResult)
    assert len(result.entries) == 100


def test_a_crowd_of_scans_is_bounded_and_counted() -> None:
    net = filled(["k"])
    plane = net.planes[1]
    ask = Scan(1, plane.registry.epoch, tuple(range(PARTITIONS)), "", "", 10)
    for _ in range(SCANS_MAX + 20):
        plane.scanning.scan(ask, 1, net.now)
    assert len(plane.scanning._open) == SCANS_MAX
    assert plane.counts["frames_dropped/scans_too_many"] == 20
