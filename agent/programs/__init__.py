"""Programs that the agent starts: apps, and handlers of events and queries.

Reading order: ``environment`` (what they are told of ours), ``child`` (a process with its pipes
and its group, started as this user), ``root_user`` (as a user of its own, by a root that gives
itself up), ``systemd_user`` (as a user of its own, by systemd), ``isolation`` (which of the three
it is here).
"""
