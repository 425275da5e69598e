"""The state plane: keys that survive the nodes which hold them.

Read in this order. First the values, which know nothing of networks:

    limits        every bound and interval of this plane, with its unit
    dots          which writes a replica has processed: a coverage clock per partition
    records       one key's live values, and the one rule by which two copies merge
    placement     which nodes own which of the fixed partitions
    registry      who belongs, who owns what: a signed value with an epoch

then what one node keeps, and how it may be asked:

    storage       what is on disk, and the changes that a Persist effect carries
    replica       this node's copy: unsaved changes over what is stored
    messages      every frame of this plane
    requests      what an application asks for, and what it gets back
    serving       answers the frames of other nodes from the replica

then the conversations, each a small table of what is under way:

    post          where they all leave frames and events; agenda: their timers
    registrar     keeps the newest registry, and fetches it from whoever has it
    writes        put and delete at the coordinating owner; forwards: getting there
    reads         quorum reads with blocking repair; listing: many keys at once
    watch         subscriptions under leases
    comparison    one pass over a partition with one other node
    repair        when to compare, with whom; handover: taking over and letting go

and at last ``plane``, which wires them on one screen.
"""
