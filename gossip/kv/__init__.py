"""The state plane: keys that survive the nodes which hold them.

Read in this order. First the values, which know nothing of networks:

    limits             every bound and interval of this plane, with its unit
    dots               which writes a replica has processed: a coverage clock per partition
    coverages          sums and differences of such clocks; deletions: the dots of deletes
    records            one key's live values, and the one rule by which two copies merge
    restored_key       versions out of a backup, under dots of now
    typed_values       counters, sets, maps, max, min: what live values come to
    counting           of whom an increment is a share; changes: what may be asked of a type

then what one node keeps, and how it may be asked:

    storage            what is on disk, and the changes that a Persist effect carries
    replica            this node's copy: unsaved changes over what is stored; hot_records: in memory
    messages           every frame of this plane
    requests           what an application asks for, and what it gets back
    replica_server     answers the frames of other nodes from the replica; scan_server: long lists

then the conversations, each a small table of what is under way:

    outbound           where they all leave frames and events; timers: their deadlines
    registry_sync      keeps the newest registry, and fetches it from whoever has it
    joint_quorum       of whom it takes how many, also while other owners are to follow
    writes             put and delete at the coordinating owner; forwarding: getting there
    reads              quorum reads with blocking repair; listing: many keys at once
    informed_writes    writes that read first: what to delete, or whether it is still the same
    typed_writes       what a change of a set, map, max or min writes, by what was read
    watch              what owners tell of changes; watch_client: how a watch is put together of it,
                       with watched_partition: what to believe of whom, watch_token: going on later
    sync_session       one pass over a partition with one other node; repair: when, with whom
    handoff            taking partitions over and letting go; takeover: when a copy is complete
    ownership_progress what the issuer hears of it

and at last ``plane``, which wires them on one screen.
"""
