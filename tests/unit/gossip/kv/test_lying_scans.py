"""Owners that answer a list with what was not asked for."""

from collections.abc import Callable

import msgspec
import pytest

from gossip.core.ids import NodeId
from gossip.kv.messages import CODEC, Scanned
from gossip.kv.records import Version
from gossip.kv.requests import List, Put
from tests.support.kv_net import Net, registry_of

LIAR = 2
KEYS = [f"rooms/{n}" for n in range(5)]
SECRET = "secret"


class Lying(Net):
    """Three owners of everything, one of which lies about what it has."""

    def __init__(self, lie: Callable[[Scanned], Scanned]) -> None:
        self.lie = lie
        self.lies = 0
        super().__init__(registry_of((1, 2, 3), 16))
        for key in (*KEYS, SECRET):
            assert self.ask(1, Put(key, b"v", w=3)).outcome == "ok"

    def send(self, sender: NodeId, to: NodeId, data: bytes) -> None:
        message = CODEC.decode(data)
        if sender == LIAR and to != LIAR and isinstance(message, Scanned):
            self.lies += 1
            data = CODEC.encode(self.lie(message))
        super().send(sender, to, data)


@pytest.mark.parametrize("asker", [1, 3])
def test_no_key_is_shown_beyond_what_was_asked_for(asker: NodeId) -> None:
    """It is read where one owner says that it has it, and who asked may see some keys alone."""

    def lie(told: Scanned) -> Scanned:
        made_up = (Version(7, 7, 7, b"made up"),)
        more = ((SECRET, made_up), (KEYS[0], made_up))
        return msgspec.structs.replace(told, entries=(*told.entries, *more))

    net = Lying(lie)
    page = net.ask(asker, List("rooms/", after=KEYS[1], limit=100, r=3))
    assert net.lies
    assert [entry.key for entry in page.entries] == KEYS[2:]


@pytest.mark.parametrize("asker", [1, 3])
@pytest.mark.parametrize("horizon", [KEYS[1], "a"])
def test_no_list_goes_on_from_where_it_began(asker: NodeId, horizon: str) -> None:
    net = Lying(lambda told: msgspec.structs.replace(told, entries=(), horizon=horizon))
    page = net.ask(asker, List("rooms/", after=KEYS[1], limit=100, r=2))
    assert (page.outcome, page.next) == ("ok", "")
    assert [entry.key for entry in page.entries] == KEYS[2:]
    net.ask(asker, List("rooms/", after=KEYS[1], limit=100, r=3, timeout_s=1.0))
    assert net.lies
