"""The registry: who belongs, who may do what, and who owns which partition; signed by the issuer.

Read ``registry`` first, then ``node`` (one entry of it), ``placement`` and ``ownership`` (who owns
a partition, and how that changes). ``lineage`` and ``merge`` are about registries with different
pasts, ``succession`` about the next authority, ``strangers`` about who is not in it.
"""
