"""What gossip missed, found by comparing member lists over streams.

``sync`` leads the conversation, ``digest`` has the hashes that are compared, and ``merge`` says
how far we follow what the other side believes.
"""
