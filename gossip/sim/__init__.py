"""The simulator: whole nodes, virtual time, seeded trouble, and checkers that miss nothing.

It is product code, kept as carefully as the protocols, because it is how they are known to work.
It replaces what lies around a node (devices, cables, disks, clocks, clients) and nothing inside.
Read in this order:

    seeds         one seed, many independent streams of random numbers
    schedule      virtual time
    network       what happens to a datagram; who hears whom
    suite         a toy cipher, for simulation only
    host          a device: what survives its processes
    kernels       what gives a dead process away
    streams       ordered, breakable connections
    driver        performs the effects of all nodes, as the asyncio driver does for one
    issuer        says who belongs
    operations    what clients asked, and what they were told
    desk          where requests are handed in, and answers find them again
    story         what happened, for people
    world         all of the above under one hand; tests begin here

    checkers      rules of the membership, watched at every step
    sizes         nothing in a node grows for ever
    history       rules of the data plane, judged from the history of operations
    faults        what will go wrong, drawn from a seed
    workload      clients
    flock         membership alone, of thousands, on the same network
    campaign      one seed: trouble, then peace, and peace must bring order
    experiment    how fast, how just, how costly: what `covey simulate` asks
    wording       messages in plain words
    puppet        a member that says only what it is told to say
    witness       what became of whom, in a line
    cast          all puppets, what they say and what they hear
    transcript    scenarios as text, with recorded answers

Nothing here reads a clock or a file: ``tests/sim`` runs it, ``tests/sim/campaign.py`` at length.
"""
