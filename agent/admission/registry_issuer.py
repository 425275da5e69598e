"""Who belongs, who owns what, and the tokens, as the authority's key signs it and the log has it.

A registry is there when a majority has it in its log, and is shown to nobody before. Any issuer can
make the next one: it reads what is agreed, has the steps of all who wait carried out on that
(``registry_draft.py``), signs what comes of it, and proposes it as the one that follows what it has
read. If another issuer was faster, nothing of it is done, and it begins again. So a hundred
devices that join at once share a registry and a commit, and two issuers need no word with each
other.

A covey that was founded before there was a log has its registry and its tokens in the founder's
``control.db``. The first time that an issuer finds none in the log, it proposes those.
"""

import asyncio
import logging
from typing import Protocol, TypeVar

import msgspec

from agent import exits
from agent.admission import presence
from agent.admission.registry_draft import Draft, Step, draft, is_done, newest_last
from agent.cluster.agreed_registry import (
    AgreedState,
    ConflictError,
    NoMajorityError,
    UnsureError,
)
from agent.cluster.cluster_view import ClusterView
from agent.cluster.elections import once_elected
from agent.exits import AgentError
from agent.identity.identity import Identity
from agent.loop.watched import TaskSet
from agent.store.control import ControlStore
from agent.store.tokens import TokenRecord, TokenState
from agent.text.units import counted
from gossip.control.commands import ChangeRegistry, TokenChange
from gossip.core.ids import NodeId
from gossip.kv.requests import OwnersReady
from gossip.registry.lineage import mark_of
from gossip.registry.merge import merge
from gossip.registry.node_change import NodeChange, arrange
from gossip.registry.registry import (
    Registry,
    SignedRegistry,
    UnknownNode,
    advance,
    amend,
    house,
    remove,
)
from gossip.registry.space_change import place_space

CHANGE_TAG = 12
"""Of ``ChangeRegistry`` in the log."""
ATTEMPTS_MAX = 5
STEPS_MAX = 64
"""Of one change: each step costs milliseconds, and who waits for it seconds at most."""
TOKENS_AT_ONCE = 50

T = TypeVar("T")

log = logging.getLogger(__name__)


class RegistryLog(Protocol):
    """Where registry and tokens are agreed on: ``agent/cluster/agreed_registry.py``."""

    async def read(self, *, stale: bool = False) -> AgreedState:
        """Return what is agreed on. Raises AgentError."""

    async def change(self, change: ChangeRegistry) -> None:
        """Have a change agreed on. Raises ConflictError, UnsureError, and AgentError."""


class NewRegistry(msgspec.Struct, frozen=True):
    """A registry that was agreed on, and the node on whose account it was looked at."""

    epoch: int
    signed: bytes
    node_id: NodeId
    is_news: bool = True
    """False where somebody asked again for what it was given before."""


class WaitingStep:
    """A step, and who waits for what comes of it."""

    def __init__(self, step: Step[object], *, alone: bool) -> None:
        self.step, self.alone = step, alone
        self.result: asyncio.Future[tuple[object, bytes]] = (
            asyncio.get_running_loop().create_future()
        )

    def settle(self, result: object, signed: bytes) -> None:
        """Tell whoever waits, if it still does."""
        if self.result.done():
            return
        if isinstance(result, Exception):
            self.result.set_exception(result)
        else:
            self.result.set_result((result, signed))


class RegistryIssuer:
    """Makes the next registry, and changes tokens, with all that is asked of it at a time."""

    def __init__(
        self, identity: Identity, store: ControlStore, covey: ClusterView, ledger: RegistryLog
    ) -> None:
        self._identity, self._store = identity, store
        self._covey, self._ledger = covey, ledger
        self._waiting: list[WaitingStep] = []
        self._tasks = TaskSet()
        self._is_working = False

    async def stop(self) -> None:
        """Give up what is under way; whoever waits for it is told."""
        await self._tasks.stop()
        self._give_up(self._waiting)

    def _give_up(self, batch: list[WaitingStep]) -> None:
        for each in batch:
            each.settle(AgentError("the agent is stopping.", status=exits.UNREACHABLE), b"")

    # ---- what is agreed -------------------------------------------------------------------------

    async def read(self) -> AgreedState:
        """Return what is agreed on now, carried over from before the log if need be.

        Raises AgentError.
        """
        while not (agreed := await self._ledger.read()).signed:
            await self._carry_over(agreed)
        ours = self._covey.signed()
        if ours != agreed.signed and _descends(self._covey.registry(), agreed):
            await self._bring_up(agreed, ours)
            return await self._ledger.read()
        return agreed

    async def _bring_up(self, agreed: AgreedState, ours: bytes) -> None:
        """Have the log say what was agreed on before an operator set it back (``covey recover``).

        Its tokens are of then, too: ended and used ones let in again. So all end.
        """
        made = Draft(agreed)
        end_all(made)
        tokens = made.token_changes()
        await self._ledger.change(ChangeRegistry(agreed.mark, ours, tokens))
        log.warning(
            "the members have a newer registry (epoch %d) than the log (epoch %d), which was set "
            "back: %s ended here, which may have been revoked or used since; make new ones",
            self._covey.registry().epoch, made.agreed.epoch, counted(len(tokens), "token"),
        )  # fmt: skip

    async def confirm(self) -> None:
        """Return when this node's copy of the log is up to date. Raises AgentError."""
        await self._ledger.read()

    def followed(self) -> tuple[Registry, bytes]:
        """Return the registry that this node follows, and its signed form."""
        return self._covey.registry(), self._covey.signed()

    async def token(self, token_id: bytes) -> TokenRecord | None:
        """Return a token; None if nobody knows it. Raises AgentError."""
        entry = (await self._ledger.read(stale=True)).tokens.get(token_id)
        if entry is None:
            entry = (await self.read()).tokens.get(token_id)
        return TokenRecord.decode(entry.value) if entry is not None else None

    async def tokens(self) -> list[TokenRecord]:
        """Return all tokens, the newest last. Raises AgentError."""
        found = (await self.read()).tokens.values()
        return newest_last(TokenRecord.decode(each.value) for each in found)

    async def kept_tokens(self) -> list[TokenRecord]:
        """Return all tokens as far as this node's own copy has come, the newest last."""
        found = (await self._ledger.read(stale=True)).tokens.values()
        return newest_last(TokenRecord.decode(each.value) for each in found)

    async def holder(self, name: str) -> NodeId | None:
        """Return who has a name; None if nobody has. Raises AgentError."""
        nodes = _registry_of((await self.read()).signed).nodes
        return next((node.id for node in nodes if node.name == name), None)

    async def _carry_over(self, agreed: AgreedState) -> None:
        """Propose what this disk has, as the first registry of the log. Raises AgentError."""
        kept = self._store.registry()
        epoch, signed = await self._covey.catch_up()
        self._covey.check_understood(CHANGE_TAG)
        tokens = self._store.tokens()
        if kept is not None and kept[0] < epoch:
            log.warning(
                "the members have a newer registry (epoch %d) than this disk (epoch %d), which was "
                "set back: its %s may have been revoked or used since; make new ones",
                epoch, kept[0], counted(len(tokens), "token"),
            )  # fmt: skip
            tokens = []
        changes = [TokenChange(each.id, 0, each.encode()) for each in tokens]
        fresh = [each for each in changes if each.id not in agreed.tokens]
        try:
            for at in range(0, len(fresh), TOKENS_AT_ONCE):
                part = tuple(fresh[at : at + TOKENS_AT_ONCE])
                await self._ledger.change(ChangeRegistry(b"", b"", part))
            await self._ledger.change(ChangeRegistry(b"", signed))
        except (ConflictError, UnsureError):
            return  # it is looked again what there is
        await self._store.forget_tokens()
        log.info(
            "the registry (epoch %d) and %s stand in the log that the voters agree on from now on",
            epoch, counted(len(tokens), "token"),
        )  # fmt: skip

    # ---- changing it ----------------------------------------------------------------------------

    async def change(self, step: Step[T], *, alone: bool = False) -> tuple[T, bytes]:
        """Have a step carried out and agreed on; return its result, and the registry after it.

        ``alone``: no other step shares its registry. Raises what the step raises, and AgentError.
        """
        waiting = WaitingStep(step, alone=alone)
        self._waiting.append(waiting)
        if not self._is_working:
            self._is_working = True
            self._tasks.start("registry-change", self._work)
        result, signed = await waiting.result
        return result, signed  # type: ignore[return-value]

    async def change_for(
        self, step: Step[tuple[NodeId, bool]], *, alone: bool = False
    ) -> NewRegistry:
        """Change the registry on account of a node; the step tells which, and whether it is news.

        Raises what the step raises, and AgentError.
        """
        (node, is_news), signed = await self.change(step, alone=alone)
        return NewRegistry(_registry_of(signed).epoch, signed, node, is_news)

    async def _work(self) -> None:
        try:
            while batch := self._next_batch():
                await self._carry_out(batch)
        finally:
            self._is_working = False

    def _next_batch(self) -> list[WaitingStep]:
        """Take those that wait, in their order, as many as can share one change."""
        batch: list[WaitingStep] = []
        while self._waiting and len(batch) < STEPS_MAX:
            if batch and (self._waiting[0].alone or batch[0].alone):
                break
            batch.append(self._waiting.pop(0))
        return batch

    async def _carry_out(self, batch: list[WaitingStep]) -> None:
        """Have a batch agreed on, and tell each what came of it."""
        try:
            results, signed = await self._agree([each.step for each in batch])
        except asyncio.CancelledError:
            self._give_up(batch)
            raise
        except Exception as error:  # noqa: BLE001 - whoever waits raises it
            for each in batch:
                each.settle(error, b"")
            return
        for each, result in zip(batch, results, strict=True):
            each.settle(result, signed)

    async def _agree(self, steps: list[Step[object]]) -> tuple[list[object], bytes]:
        """Return the steps' results and the registry after them. Raises AgentError."""
        unsure: UnsureError | None = None
        for _ in range(ATTEMPTS_MAX):
            base = await (self.read() if unsure is None else self._read_after(unsure))
            drafted = await asyncio.to_thread(draft, base, steps, self._sign)
            try:
                is_agreed = await self._is_agreed(drafted.change)
            except UnsureError as error:
                assert drafted.change is not None, "nothing else is unsure"
                unsure = error
                is_agreed = is_done(drafted.change, await self._read_after(error))
            except NoMajorityError as error:
                raise unsure or error from None
            if not is_agreed:
                continue
            signed = (drafted.change and drafted.change.registry) or base.signed
            if signed != self._covey.signed():
                await self._covey.follow(signed, self._store)
            return drafted.results, signed
        raise AgentError(
            "others changed the registry at the same time, again and again; nothing was changed.",
            "Run the same command again.",
            exits.UNHEALTHY,
        )

    async def _is_agreed(self, change: ChangeRegistry | None) -> bool:
        """Have a change agreed on; False: what it was made from has changed. Raises AgentError."""
        if change is None:
            return True
        try:
            await self._ledger.change(change)
        except ConflictError:
            return False
        return True

    async def _read_after(self, unsure: UnsureError) -> AgreedState:
        """Return what is agreed on now, after a change of which nobody has told what became of it.

        Raises UnsureError when no majority says so: it may be done.
        """
        try:
            return await once_elected(self.read)
        except NoMajorityError:
            raise unsure from None

    def _sign(self, registry: Registry) -> bytes:
        """Sign with the key of the authority that the registry names. Raises AgentError."""
        payload = registry.encode()
        signature = self._identity.sign(payload, registry.authority)
        return SignedRegistry(payload, signature).encode()

    # ---- what is not asked by who joins ---------------------------------------------------------

    async def set_roles(self, node: NodeId, roles: tuple[str, ...]) -> NewRegistry:
        """Say what a node may do; return the registry that says so. Raises UnknownNode."""

        def step(made: Draft) -> tuple[NodeId, bool]:
            entry = made.registry.node(node)
            if entry is None:
                raise UnknownNode(f"no node {node:016x} belongs to this covey")
            if entry.roles == roles:
                return node, False
            amended = msgspec.structs.replace(entry, roles=roles)
            made.follow_with(amend(made.registry, amended))
            return node, True

        return await self.change_for(step)

    async def arrange(self, node: NodeId, change: NodeChange) -> NewRegistry:
        """Set a node's zone or weight, or whether it drains; return the registry that says so.

        Raises UnknownNode, NobodyLeft.
        """

        def step(made: Draft) -> tuple[NodeId, bool]:
            arranged = arrange(made.registry, node, change)
            is_news = arranged is not made.registry
            if is_news:
                made.follow_with(arranged)
            return node, is_news

        return await self.change_for(step)

    async def place_space(self, name: str, replicas: int) -> NewRegistry:
        """Give the keys of a space so many owners; return the registry that says so.

        Raises InvalidRequest.
        """

        def step(made: Draft) -> tuple[NodeId, bool]:
            placed = place_space(made.registry, name, replicas)
            is_news = placed is not made.registry
            if is_news:
                made.follow_with(placed)
            return self._identity.node_id, is_news

        return await self.change_for(step)

    async def remove(self, node: NodeId, *, accept_loss: bool = False) -> NewRegistry:
        """Take a node out; return the registry without it.

        Raises UnknownNode, InvalidRequest, and AgentError for the only issuer.
        """
        is_repeated = False

        def step(made: Draft) -> tuple[NodeId, bool]:
            nonlocal is_repeated
            if is_repeated and any(gone.id == node for gone in made.registry.removed):
                return node, True  # nobody had told us that it was done
            is_repeated = True
            if {node} == {each.id for each in made.registry.nodes if each.is_issuer}:
                raise AgentError(
                    "this node alone holds the authority's key and cannot be removed; nothing was "
                    "changed.",
                    hint="`covey leave` takes it out for a time. Where three nodes vote, others "
                    "have the key, too (`covey voters`).",
                    status=exits.NOT_PERMITTED,
                )
            made.follow_with(remove(made.registry, node, accept_loss=accept_loss))
            return node, True

        return await self.change_for(step)

    async def advance(self, ready: OwnersReady) -> bool:
        """Say which partitions go on, and who is there; tell whether that was news.

        The one it is made from may be newer than the one that ``ready`` is about.
        """
        news: tuple[Registry, Registry] | None = None

        def step(made: Draft) -> None:
            nonlocal news
            before = made.registry
            heard = ready.here, ready.away, ready.missing, ready.found
            after = advance(before, ready.done, ready.epoch, *heard)
            news = (before, after) if after is not before else None
            if news:
                made.follow_with(after)

        _, signed = await self.change(step)
        if news is not None:
            presence.log_changes(news[0], _registry_of(signed))
        return news is not None

    async def house(self) -> bool:
        """Give the devices their homes; tell whether that was news. Raises AgentError."""
        is_news = False

        def step(made: Draft) -> None:
            nonlocal is_news
            housed = house(made.registry)
            is_news = housed is not made.registry
            if is_news:
                made.follow_with(housed)

        await self.change(step)
        return is_news

    async def mend(self, ours: bytes, rival: bytes) -> NewRegistry:
        """End a fork: sign the registry that follows both of these.

        A disk was set back once, and its tokens with it: all end.
        """

        def step(made: Draft) -> tuple[NodeId, bool]:
            theirs = ours if made.base.signed == rival else rival
            payload = SignedRegistry.decode(theirs).payload
            both = (made.agreed, made.base.mark, Registry.decode(payload), mark_of(payload))
            made.end_fork_with(merge(*both))
            end_all(made)
            return self._identity.node_id, True

        return await self.change_for(step, alone=True)


def end_all(made: Draft) -> None:
    """Revoke all tokens that let somebody in, or will by a clock that is put right.

    Who was let in stays noted.
    """
    for token in made.tokens():
        if not token.is_over:
            made.put_token(token.ended_as(TokenState.REVOKED))


def _registry_of(signed: bytes) -> Registry:
    return Registry.decode(SignedRegistry.decode(signed).payload)


def _descends(registry: Registry, agreed: AgreedState) -> bool:
    """Tell whether a later registry has the agreed one in its past, as far as it tells."""
    behind = registry.epoch - _registry_of(agreed.signed).epoch
    return behind > 0 and registry.lineage[behind - 1 : behind] == (agreed.mark,)
