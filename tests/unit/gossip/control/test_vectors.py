"""The bytes of every control plane message are pinned; ``test_fuzz_codecs.py`` spoils them."""

import json
from pathlib import Path

from gossip.consensus.configuration import Configuration, Voter
from gossip.consensus.messages import Entry, EntryKind, SnapshotMark
from gossip.control import lookups, outcomes
from gossip.control import messages as m
from gossip.control.barriers import Barrier
from gossip.control.keys import KeyEntry
from gossip.control.locks import Lock, LockDelay, LockHolder, LockWaiter
from gossip.control.registry_table import TokenEntry
from gossip.control.sessions import ControlSession
from gossip.control.stability import StabilityReport
from gossip.control.transactions import (
    DeletedResult,
    EntriesResult,
    GetKey,
    GetRange,
    WrittenResult,
)

VECTORS = Path(__file__).parents[3] / "vectors" / "control-v1.json"

NODE, NUMBER = 2**64 - 1, 2**63 - 1
HEARSAY = m.Hearsay(NODE, 3, (NODE, 7), 40)
STANDING = m.CopyStanding(2, NUMBER, NUMBER, 3, 40, 39, True, False, HEARSAY)
ENTRY = KeyEntry("lamp", b"on", 5, 6, 2, 4)
MARK = SnapshotMark(9, 3, Configuration((Voter(1, NODE),)), 1, 100, 2**32 - 1, 64)
LOCK = Lock(
    "door", 2, (LockHolder(4, 9, b"me"),), (LockWaiter(5, 10, b""),), (LockDelay(8, 15_000),)
)

ASKS: list[m.AskBody] = [
    m.ProposeAsk(b"command"),
    m.LookupAsk(lookups.ReadKeys((GetKey("lamp"), GetRange("room/", "room/1", 10, True)))),
    m.LookupAsk(lookups.ReadLocks("do", "door", 10)),
    m.LookupAsk(lookups.ReadSessions(4, 10)),
    m.LookupAsk(lookups.ReadBarriers("st", "start", 10)),
    m.LookupAsk(lookups.ReadRegistry()),
    m.RenewAsk((4, 5)),
    m.PullAsk(1, 40, 30_000),
    m.ChunkAsk(40, 2),
    m.LeaderAsk(),
    m.StabilityAsk(StabilityReport(NUMBER, 7200, 12, True, False, 2, NUMBER)),
    m.ReplaceAsk(NODE, 7),
    m.StandingAsk(STANDING),
    m.OverviewAsk(),
]
OUTCOMES: list[outcomes.CommandOutcome] = [
    outcomes.Declined("full", "delete something"),
    outcomes.ClientResult(12),
    outcomes.TransactionResult(
        True, (WrittenResult(2), DeletedResult(1), EntriesResult((ENTRY,), True))
    ),
    outcomes.SessionResult(4, 10_000),
    outcomes.EndedResult(True),
    outcomes.LockResult(9, 0),
    outcomes.ReleasedResult(True),
    outcomes.BarrierResult(2, True),
    outcomes.ChangedResult(40),
]
RESULTS: list[lookups.LookupResult] = [
    lookups.KeysResult((EntriesResult((ENTRY,)),)),
    lookups.LocksResult((LOCK,), False),
    lookups.SessionsResult((ControlSession(4, NODE, 10_000, 0, "me"),), True),
    lookups.BarriersResult((Barrier("start", 2, (4, 5), True),), False),
    lookups.RegistryResult(b"signed", bytes(16), 39, (TokenEntry(b"token", b"value", 38),)),
]
MESSAGES: list[m.ControlMessage] = [
    *(m.ControlAsk(NUMBER, body) for body in ASKS),
    *(m.ControlAnswer(NUMBER, m.OutcomeAnswer(40, outcome)) for outcome in OUTCOMES),
    *(m.ControlAnswer(NUMBER, m.LookupAnswer(40, result)) for result in RESULTS),
    m.ControlAnswer(NUMBER, m.RedirectAnswer(m.RedirectReason.NOT_LEADER, HEARSAY)),
    m.ControlAnswer(NUMBER, m.RenewAnswer((4,))),
    m.ControlAnswer(
        NUMBER, m.PullAnswer(1, (Entry(40, 3, EntryKind.COMMAND, b"command"),), HEARSAY, NUMBER)
    ),
    m.ControlAnswer(NUMBER, m.MarkAnswer(1, MARK, NUMBER)),
    m.ControlAnswer(NUMBER, m.ChunkAnswer(40, 2, b"chunk")),
    m.ControlAnswer(NUMBER, m.ReplaceAnswer("it votes already")),
    m.ControlAnswer(NUMBER, m.HeardAnswer(HEARSAY)),
    m.ControlAnswer(NUMBER, m.StandingAnswer(STANDING)),
    m.ControlAnswer(
        NUMBER,
        m.OverviewAnswer(
            3,
            40,
            41,
            (m.MemberOverview(NODE, NUMBER, True, 40, 900, True, False, 7200, 12, None, True),),
            3,
            False,
            (m.NoVoteReason(7, "it learns"),),
        ),
    ),
]


def test_every_message_has_its_pinned_bytes() -> None:
    """If this fails, nodes of two versions cannot talk: add fields at the end, with a default."""
    pinned = json.loads(VECTORS.read_text())
    assert [m.CODEC.encode(each).hex() for each in MESSAGES] == pinned


def test_pinned_bytes_come_back_as_their_messages() -> None:
    pinned = [bytes.fromhex(data) for data in json.loads(VECTORS.read_text())]
    assert [m.CODEC.decode(data) for data in pinned] == MESSAGES


def test_every_question_and_every_answer_has_one() -> None:
    assert {type(each) for each in ASKS} == set(m.AskBody.__args__)
    answers = {type(each.body) for each in MESSAGES if isinstance(each, m.ControlAnswer)}
    assert answers == set(m.AnswerBody.__args__)
    assert {type(each) for each in OUTCOMES} == set(outcomes.CommandOutcome.__args__)
    assert {type(each) for each in RESULTS} == set(lookups.LookupResult.__args__)


if __name__ == "__main__":
    VECTORS.write_text(json.dumps([m.CODEC.encode(each).hex() for each in MESSAGES]) + "\n")
