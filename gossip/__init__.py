"""The protocols of Covey, as pure state machines: no sockets, no clock, no disk, no threads.

Read in this order:

    machine       the contract: inputs and the time go in, ordered effects come out
    ids, errors   the vocabulary: who is who, and whose fault it was
    wire          messages as bytes
    envelope      the sealed datagram: who may speak at all
    tuning        every interval and limit of the membership, with its reason
    clock         a clock that orders what wall clocks cannot
    membership/   who is there: SWIM with Lifeguard
    state/        what is kept: placement, records, replicas, repair
    node          all of it wired, on one screen
    sim/          whole nodes in virtual time, with a hand that breaks things

Everything here runs the same in the simulator and in the agent. ``ruff.toml`` bans what would
make two runs with the same inputs differ.
"""
