"""Who is there: SWIM with Lifeguard, as pure state machines.

Read in this order: ``messages`` (what is said), ``members`` (what is known, and which of two
claims wins), ``beliefs`` (how what is said changes what is known), ``probe`` and ``detector`` (how
a silent member is noticed), ``suspicion`` and ``awareness`` (how patiently), ``rumours`` and
``post`` (how news travel), ``introductions`` and ``exchange`` (how strangers and estranged halves
meet), ``swim`` (all of it together).
"""
