"""User events and queries: a layer on the membership, as Serf is on memberlist.

``lamport`` orders events, ``events`` delivers each once, ``event_sync`` brings those that were
missed, ``queries`` asks and gathers answers; ``plane`` wires them, ``messages`` has what they say.
The membership knows it as its ``Delegate`` alone, which ``gossip/node.py`` hands it, and carries
its messages unread.
"""
