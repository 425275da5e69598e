"""Issuers of registries in whole nodes: who holds the authority's key, and what is proposed.

Each does as an agent's (``agent/admission/registry_issuer.py``): it reads what is agreed on, makes
the next one with all steps that wait, signs it, and has it agreed on; if somebody else was first,
it begins anew. The key goes to who votes and asks for it, and is wiped where nobody votes any more
(``agent/admission/authority_keeper.py``). Demanded is, of each step:

* a read that was confirmed shows what was agreed on when it began, or what came later;
* what an issuer proposes is never declined but because somebody else was first;
* somebody who belongs has the key.
"""

from collections.abc import Callable

import msgspec

from gossip.control.commands import ChangeRegistry, TokenChange
from gossip.control.lookups import ReadRegistry, RegistryResult
from gossip.control.outcomes import CONFLICT, ChangedResult, Declined
from gossip.control.requests import ControlCompleted, ControlRead, ControlWrite
from gossip.core.ids import NodeId
from gossip.kv.ownership_progress import acting_issuer
from gossip.registry.batch import as_next
from gossip.registry.node import ISSUER
from gossip.registry.registry import Registry, SignedRegistry, amend
from tests.sim.owners import Violation
from tests.sim.whole_nodes import WholeNodes, decoded
from tests.support.kv_net import FIRST, sign

ISSUE_S = 20.0
TRIES_MAX = 3
LOOKS_BEFORE_TAKING = 3
"""As an agent: so often in a row somebody is found not to vote before the role is taken."""
TOKEN = b"token"

Make = Callable[[Registry], Registry | None]
"""Returns the registry that follows on another one; None: nothing is to be done any more."""


class Issue(msgspec.Struct):
    """Changes on their way: how to make the next registry from the one that is agreed on."""

    makes: list[Make]
    tries: int = 0
    term: int = 0
    floor: int = 0
    """The epoch that was agreed on when its read began; 0 for one that may be old."""


class Issuing(WholeNodes):
    """Nodes of which some issue registries."""

    def __init__(self, seed: int) -> None:
        self.issues: dict[tuple[NodeId, int], Issue] = {}
        self.waiting: dict[NodeId, list[Make]] = {}
        self.asking: dict[tuple[NodeId, int], NodeId] = {}
        """Reads of who was asked for the key, and who asks for it."""
        self.voteless: dict[NodeId, dict[NodeId, int]] = {}
        self.generation = 1
        """Of what is agreed on: it grows when an operator goes on after a lost majority."""
        self.removing: set[Make] = set()
        """Which steps are removals."""
        self.removal_bases: list[int] = []
        self.keys: set[NodeId] = set()
        """Who has the authority's key on its disk."""
        super().__init__(seed)
        self.keys |= {each.id for each in self.registry.nodes if each.is_issuer}

    def crash(self, number: NodeId) -> None:
        super().crash(number)
        self.issues = {name: each for name, each in self.issues.items() if name[0] != number}
        self.asking = {
            name: each for name, each in self.asking.items() if number not in (name[0], each)
        }
        self.waiting.pop(number, None)
        self.voteless.pop(number, None)

    def scrap(self, number: NodeId) -> None:
        super().scrap(number)
        self.keys.discard(number)

    # Issuing

    def begin_issue(self, who: NodeId, make: Make) -> None:
        """Take a step, with those that wait; or let it wait until the one under way is done."""
        if any(name[0] == who for name in self.issues) and self.trouble_rng.random() < 0.7:
            self.waiting.setdefault(who, []).append(make)
        else:
            self._begin_issue(who, [make])

    def _begin_issue(self, who: NodeId, makes: list[Make], tries: int = 0) -> None:
        """Read what is agreed on, to make the next one; now and then from an old copy."""
        stale = self.trouble_rng.random() < 0.15
        agreed = self.agreed.registry.agreed
        floor = decoded(agreed.signed).epoch if agreed and not stale else 0
        number = self._read(who, stale=stale)
        self.issues[who, number] = Issue(makes, tries, floor=floor)
        self.settle_control(who)

    def _read(self, who: NodeId, *, stale: bool) -> int:
        read = ControlRead(ReadRegistry(), stale=stale, timeout_s=ISSUE_S)
        return self.controls[who].submit(read, self.now)

    def heard_back(self, who: NodeId, done: ControlCompleted) -> None:
        asker = self.asking.pop((who, done.request), None)
        issue = self.issues.pop((who, done.request), None)
        if asker is not None and isinstance(done.result, RegistryResult):
            self._hand_over_key(who, asker)
        if issue is None or who not in self.controls:
            return
        match done.result:
            case RegistryResult():
                self._judge_freshness(who, issue, done.result)
                self._propose(who, issue, done.result)
            case ChangedResult():
                self.counts["schedule/agreed"] += 1
                raft = self.controls[who].part.raft
                moved = raft is not None and raft.term != issue.term
                self.counts["schedule/leader changed in a proposal"] += moved
            case Declined(code, reason):
                if code != CONFLICT:
                    raise Violation(f"what {who} proposed is declined: {reason}")
                self.counts["schedule/conflict"] += 1
                if issue.tries < TRIES_MAX:
                    self._begin_issue(who, issue.makes, issue.tries + 1)
            case _:
                self.counts["schedule/nobody answered"] += 1
        if who in self.waiting and not any(name[0] == who for name in self.issues):
            self._begin_issue(who, self.waiting.pop(who))

    def _judge_freshness(self, who: NodeId, issue: Issue, found: RegistryResult) -> None:
        epoch = decoded(found.registry).epoch if found.registry else 0
        if epoch < issue.floor:
            raise Violation(f"{who} reads epoch {epoch}, and {issue.floor} was agreed on before")

    def _propose(self, who: NodeId, issue: Issue, found: RegistryResult) -> None:
        makes = [*issue.makes, *self.waiting.pop(who, ())]
        if who not in self.keys:
            self.counts["schedule/no key any more"] += 1
            return
        is_sure = issue.floor or self.generation > 1
        change = self._bringing_up(who, found) if is_sure else None
        if change is not None:
            self.waiting[who], makes = makes, []
        elif found.registry:
            change = self._change(makes, found)
        else:
            change = self._moving_over(who)
        if change is None:
            return
        self.signed_one(who, change.registry)
        number = self.controls[who].submit(ControlWrite(change, ISSUE_S), self.now)
        raft = self.controls[who].part.raft
        self.issues[who, number] = Issue(makes, issue.tries, raft.term if raft else 0)
        self.settle_control(who)

    def _moving_over(self, who: NodeId) -> ChangeRegistry | None:
        """Nothing is in the log yet: who issued alone so far moves over what it has."""
        if who != FIRST:
            return None
        return ChangeRegistry(b"", sign(self.planes[who].registry))

    def _bringing_up(self, who: NodeId, found: RegistryResult) -> ChangeRegistry | None:
        """Have the log say what this node follows, if the log was set back. All tokens end."""
        ours = self.planes[who].registry
        behind = ours.epoch - decoded(found.registry).epoch if found.registry else 0
        if behind <= 0 or ours.lineage[behind - 1 : behind] != (found.mark,):
            return None
        ended = tuple(TokenChange(each.id, each.revision, bytes(4)) for each in found.tokens)
        return ChangeRegistry(found.mark, sign(ours), ended)

    def _change(self, makes: list[Make], found: RegistryResult) -> ChangeRegistry | None:
        """Take all steps that wait, one after the other, and sign the last as the next one."""
        base = last = decoded(found.registry)
        for make in makes:
            last = make(last) or last
        if last is base:
            return None
        if frozenset(base.ids()) - frozenset(last.ids()):
            self.removal_bases.append(base.epoch)
        if last.epoch > base.epoch + 1:
            self.counts["schedule/several in one"] += 1
            last = as_next(SignedRegistry.decode(found.registry).payload, base, last)
        newcomers = frozenset(last.ids()) - frozenset(base.ids())
        tokens = (self._used(found, len(newcomers)),) if newcomers else ()
        return ChangeRegistry(found.mark, sign(last), tokens)

    def _used(self, found: RegistryResult, times: int) -> TokenChange:
        token = next((each for each in found.tokens if each.id == TOKEN), None)
        uses = (int.from_bytes(token.value) if token else 0) + times
        return TokenChange(TOKEN, token.revision if token else 0, uses.to_bytes(4))

    def signed_one(self, who: NodeId, signed: bytes) -> None:
        """An issuer has signed a registry. It shows it to nobody before it is agreed on."""

    def issuers(self) -> list[NodeId]:
        """Return who runs, has the authority's key and is an issuer, as it believes."""
        return [
            number
            for number, plane in sorted(self.planes.items())
            if number in self.keys
            and (entry := plane.registry.node(number)) is not None
            and entry.is_issuer
        ]

    def an_issuer(self) -> NodeId | None:
        able = self.issuers()
        return self.trouble_rng.choice(able) if able else None

    def may_remove_yet(self) -> bool:
        """Whether the removal of somebody is asked for, or proposed and may be agreed on yet."""
        under_way = (each.makes for each in self.issues.values())
        return any(
            not self.removing.isdisjoint(makes) for makes in (*under_way, *self.waiting.values())
        ) or any(base >= self.registry.epoch for base in self.removal_bases)

    # The authority's key

    def look_after_key(self, who: NodeId) -> None:
        """Do as an agent does every other second: ask for the key, use it, or wipe it."""
        registry, (leader, voters) = self.planes[who].registry, self.controls[who].voting()
        entry = registry.node(who)
        if entry is not None and who in voters:
            if who not in self.keys:
                self._ask_for_key(who)
            elif not entry.is_issuer:
                self._set_role(who, who, has_it=True)
        elif entry is None or not entry.is_issuer:
            self._wipe(who)
        acts = who in self.keys and acting_issuer(registry, leader, voters) == who
        if acts:
            self._take_back(who, voters)

    def _ask_for_key(self, who: NodeId) -> None:
        """Ask any issuer. That one looks first what a majority says."""
        givers = [
            each.id
            for each in self.planes[who].registry.nodes
            if each.is_issuer and each.id in self.planes and self.reach_each_other(who, each.id)
        ]
        if givers and who not in self.asking.values():
            giver = self.trouble_rng.choice(givers)
            self.asking[giver, self._read(giver, stale=False)] = who
            self.settle_control(giver)

    def _hand_over_key(self, giver: NodeId, who: NodeId) -> None:
        votes = giver in self.controls and who in self.controls[giver].voting()[1]
        if not votes or self.planes[giver].registry.node(who) is None:
            self.counts["schedule/key refused"] += 1
        elif giver in self.keys and who in self.planes and self.reach_each_other(who, giver):
            self.counts["schedule/key handed over"] += 1
            self.keys.add(who)

    def reach_each_other(self, one: NodeId, other: NodeId) -> bool:
        return self.reaches(one, other) and self.reaches(other, one)

    def _wipe(self, who: NodeId) -> None:
        if who in self.keys and any(each.is_issuer for each in self.planes[who].registry.nodes):
            self.counts["schedule/key wiped"] += 1
            self.keys.discard(who)

    def _take_back(self, who: NodeId, voters: tuple[NodeId, ...]) -> None:
        """Take the role from who votes no more, as long as one that votes has it."""
        issuers = {each.id for each in self.planes[who].registry.nodes if each.is_issuer}
        gone = issuers.difference(voters) if issuers.intersection(voters) else set()
        seen = self.voteless.get(who, {})
        self.voteless[who] = {each: seen.get(each, 0) + 1 for each in gone}
        for each, looks in sorted(self.voteless[who].items()):
            if looks >= LOOKS_BEFORE_TAKING:
                self._set_role(who, each, has_it=False)

    def _set_role(self, who: NodeId, about: NodeId, *, has_it: bool) -> None:
        roles = (ISSUER,) if has_it else ()

        def make(base: Registry) -> Registry | None:
            entry = base.node(about)
            if entry is None or entry.roles == roles:
                return None
            self.counts["schedule/role given" if has_it else "schedule/role taken"] += 1
            return amend(base, msgspec.structs.replace(entry, roles=roles))

        if not any(name[0] == who for name in self.issues):
            self.begin_issue(who, make)

    def judge(self) -> None:
        super().judge()
        if not self.keys.intersection(self.registry.ids()):
            raise Violation("nobody who belongs has the authority's key any more")
