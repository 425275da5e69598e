"""The running covey, as the rest of the agent uses it.

``kv``: shared keys; ``events``, with ``event_handlers`` and ``event_json``: events and queries at
this node; ``fact_publisher``: what it tells of itself; ``rtt``: how far two members are from each
other; ``member_log`` and ``state_reasons``: what happened to members, and why.
"""
