"""Who is there: SWIM with Lifeguard, as pure state machines.

Read in this order, which is also the order of who may import whom:

    model/           what is said, what is known, and which of two updates holds
    network/         how far members are, and which paths to them work
    dissemination/   how news travel: queues, and the packets that carry them
    members/         who is listed, and the bounds of the list
    detection/       who failed: probes, suspicions, crash evidence, planned absence
    anti_entropy/    what gossip missed, compared and merged over streams
    bootstrap        how strangers meet, and how those who lost each other meet again
    rtt              round trips between two members, for whoever asks
    delegate         what stands on the membership and travels with it
    dispatch, swim   packets taken apart; and all of it wired
    warm_start       a covey that formed long ago, for simulations of many
"""
