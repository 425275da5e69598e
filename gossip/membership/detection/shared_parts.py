"""What the parts of one node's membership share, and change before each other's eyes."""

import random
from collections import Counter
from typing import NamedTuple

from gossip.core.tuning import Tuning
from gossip.membership.detection.awareness import Awareness
from gossip.membership.detection.probe import ProbeOrder
from gossip.membership.dissemination.outbound import Outbound
from gossip.membership.members.member_list import MemberList
from gossip.membership.model.local_member import LocalMember
from gossip.membership.model.members import MemberTable
from gossip.membership.model.signatures import Signatures
from gossip.membership.network.reachability import Reachability


class SharedParts(NamedTuple):
    """What each part of one membership machine is made with; made once, by ``swim.py``."""

    local: LocalMember
    member_list: MemberList
    outbound: Outbound
    awareness: Awareness
    order: ProbeOrder
    reachability: Reachability
    tuning: Tuning
    rng: random.Random
    signatures: Signatures

    @property
    def members(self) -> MemberTable:
        """The listed members; only ``member_list`` writes into it."""
        return self.member_list.members

    @property
    def counts(self) -> Counter[str]:
        """What the membership counts."""
        return self.outbound.counts
