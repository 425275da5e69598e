"""The simulator: whole nodes, virtual time, seeded trouble, and checkers that miss nothing.

It is product code, kept as carefully as the protocols, because it is how they are known to work.
It replaces what lies around a node (devices, cables, disks, clocks, clients) and nothing inside.
Read in this order:

    rng                one seed, many independent streams of random numbers
    schedule           virtual time
    network            what happens to a datagram; who hears whom
    toy_cipher         a toy cipher, for simulation only
    host, disk         a device: what survives its processes
    kernel             what gives a dead process away
    streams            ordered, breakable connections
    driver             performs the effects of all nodes, as the asyncio driver does for one
    issuer             says who belongs
    operations         what clients asked, and what they were told
    requests           where requests are handed in, and answers find them again
    trace              what happened, for people
    world              all of the above under one hand; tests begin here

    invariants         rules of the membership, watched at every step
    memory_bounds      nothing in a node grows for ever
    consistency        rules of the data plane, judged from the history of operations
    faults             what will go wrong, drawn from a seed
    workload           clients
    membership_world   membership alone, of thousands, on the same network
    campaign           one seed: trouble, then peace, and peace must bring order
    experiment         how fast, how just, how costly: what ``covey simulate`` asks
    script/            golden transcripts

A Raft group has a world of its own, on the same virtual time, air and streams:

    log_disk              a log on a disk: what a power cut leaves of it
    device_clock          clocks that are fast, slow, or ahead all at once
    consensus_store       a small state machine: registers, lists, locks
    consensus_host        a device with a log, and the Raft machine on it
    consensus_driver      performs the effects of all machines
    consensus_clients     who asks, asks again, and sometimes gives up
    consensus_application applies what is committed, and answers them
    log_shadow            what each log has to be by what was written
    consensus_checkers    rules of Raft, watched at every step
    consensus_world       all of these under one hand
    consensus_operator    who changes voters, and hands leadership over, at the worst moments
    consensus_faults      what will go wrong, drawn from a seed

Nothing here reads a clock or a file: ``tests/sim`` runs it, ``tests/sim/campaign.py`` and
``tests/sim/consensus_campaign.py`` at length.
"""
