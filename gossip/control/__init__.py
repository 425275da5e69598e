"""The control plane: what a majority of the voters has agreed on, command by command.

Read in this order. First the state, which knows nothing of networks, disks, clocks or votes, and
imports nothing but ``gossip.core``:

    bounds           every bound, and the space that all of it shares
    keys             keys with revisions
    transactions     compare, then, otherwise; drafts: carried out whole or not at all
    sessions         what a client holds as long as it is there
    locks            locks, semaphores and elections, with fencing tokens; barriers
    registry_table   who belongs: the signed registry, and the tokens
    commands         what stands in the log; outcomes: what it came to
    clients          each command once, also when it is repeated
    state_machine    all of these: applies the log, makes snapshots
    history          what changed lately; watchers: who is told
    lookups          what may be read
    fleet_settings   settings for the fleet, as keys
    renewals         a leader's clock for sessions and lock delays

then how a node asks, of which ``messages`` has every frame and ``requests`` what is told:

    directory        whom to ask, by hearsay; leader_search: while nobody is known to lead
    proposals        commands on their way into the log; own_reads; session_keeper

then how it gets the log, and answers those who ask:

    applier          the one place that applies what is committed
    log_copy         pulls the log from a voter; copy_saver, log_mirror: what is on disk
    participation    runs Raft instead, when this node takes part in the agreement
    committed_log    what a voter hands to those who pull
    confirmed_reads  what is answered only when it is sure to be up to date
    lead             what only a leader does: it measures sessions
    answering        what a voter does for those who ask

then who votes:

    stability        how well a node would vote; own_reports: it tells the leader
    voters           what is to be changed of who votes, as a pure function; own_orders
    voter_keeper     looks, at the leader, and begins the change that is due

and at last ``plane``, which wires them on one screen; ``outbound`` is where all leave frames.
"""
