"""The protocols of Covey, as pure state machines: no sockets, no clock, no disk, no threads.

Read in this order:

    core/         the ground: the contract of a machine, ids, errors, wire, envelope, tuning
    membership/   who is there: SWIM with Lifeguard
    events/       events and queries, a layer on the membership
    registry/     who belongs, and who owns which partition, signed
    kv/           what is kept: records, replicas, reads, writes, repair
    consensus/    agreement: one Raft group, whose voters stand in its log
    node          all of it wired, on one screen
    sim/          whole nodes in virtual time, with a hand that breaks things

Everything here runs the same in the simulator and in the agent. ``ruff.toml`` bans what would make
two runs with the same inputs differ.
"""
