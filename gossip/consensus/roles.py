"""The four roles of a voter, and which of them may follow on which.

::

               time is up              most would vote for it          most did
    follower ─────────────▶ pre-candidate ─────────────▶ candidate ─────────────▶ leader
      ▲  │                        │  ▲                     │   │                    │
      │  └── asked to take over ──┼──┼────────────────────▶┘   │                    │
      │                           │  └────── time is up ───────┘                    │
      └── a leader, or a later term, or too few ◀─┴────────────────────────────────┘

Asking first whether one would be elected costs a round, and keeps a voter that hears nobody from
raising its term for ever and deposing a good leader when it is back (rule 3; Ongaro 2014, 9.6). A
learner is a follower who is not among the voters: that is a property of the configuration.
"""

import enum


class Role(enum.StrEnum):
    """What a store does in its term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


TRANSITIONS: dict[Role, frozenset[Role]] = {
    Role.FOLLOWER: frozenset({Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE}),
    Role.PRE_CANDIDATE: frozenset({Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE}),
    Role.CANDIDATE: frozenset({Role.FOLLOWER, Role.PRE_CANDIDATE, Role.LEADER}),
    Role.LEADER: frozenset({Role.FOLLOWER}),
}
"""Which role may follow on which; a leader leads its term or does nothing in it."""
