"""Events and queries at this node: sent, followed, handed to handlers and apps, answered.

What travels between nodes, and how, is in ``gossip/events/plane.py``.
"""
