"""Agreement: one Raft group, as a pure machine. Nothing in here knows what the entries mean.

Read in this order. First the words that are said and stored, which know nothing of time:

    configuration   voters, learners, joint quorums, and which change of them is legal
    messages        entries, and every frame of this room
    tuning          every interval and limit
    storage         what is on disk, and the changes that a Persist effect carries
    roles           the four roles, and which may follow on which
    requests        what an application asks for, and what it is told

then one store:

    outbound        what is to be saved, sent and told; persist before reveal
    holds           what keeps it from taking anything in, and since when
    log             entries in memory: saved, committed, handed on
    replica_state   what all parts share: identity, term, vote, role
    misfits         which messages change nothing, and why

then who leads, and what follows from it:

    election        asking, standing, voting
    following       the follower's side of replication
    progress        one follower in the eyes of the leader
    replication     what the leader sends, what comes back, what is committed
    heartbeats      rounds, and whether most still follow; clones: who lives twice
    read_index      reads at the leader; pending_reads: those of this store
    snapshots       made and sent; snapshot_arrival: received
    reconfiguration changes of who takes part
    transfer        handing leadership over

and at last ``raft``, which wires them on one screen.
"""
