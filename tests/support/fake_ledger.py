"""A log of one voter without any log: what the issuers of a test agree on."""

from agent.cluster.agreed_registry import AgreedState, ConflictError, NoMajorityError, UnsureError
from agent.exits import UNHEALTHY, AgentError
from agent.store.tokens import TokenRecord
from gossip.control.bounds import Space
from gossip.control.commands import ChangeRegistry, check_command
from gossip.control.outcomes import CONFLICT, Declined
from gossip.control.registry_table import RegistryTable


class FakeLedger:
    """Decides as every replica does. ``has_majority``, and what becomes of answers, are set."""

    def __init__(self) -> None:
        self.table = RegistryTable(Space())
        self.index = 0
        self.changes: list[ChangeRegistry] = []
        self.has_majority = True
        self.loses_answers = 0
        """So many changes are carried out, and nobody is told."""

    async def read(self, *, stale: bool = False) -> AgreedState:
        if not (self.has_majority or stale):
            raise NoMajorityError("no majority", "wait", UNHEALTHY)
        return self.state()

    def state(self) -> AgreedState:
        agreed = self.table.agreed
        tokens = {each.id: each for each in self.table}
        return AgreedState(agreed.signed if agreed else b"", self.table.mark, tokens)

    async def change(self, change: ChangeRegistry) -> None:
        if not self.has_majority:
            raise NoMajorityError("no majority", "wait", UNHEALTHY)
        check_command(change)
        self.index += 1
        outcome = self.table.change(change, self.index)
        if isinstance(outcome, Declined):
            raise (ConflictError if outcome.code == CONFLICT else AgentError)(outcome.reason)
        self.changes.append(change)
        if self.loses_answers:
            self.loses_answers -= 1
            raise UnsureError("nobody answered")

    def tokens(self) -> list[TokenRecord]:
        """Return the tokens, the newest last."""
        tokens = [TokenRecord.decode(each.value) for each in self.table]
        return sorted(tokens, key=lambda token: token.note.made_at)
