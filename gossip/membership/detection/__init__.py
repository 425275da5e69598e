"""Who failed (SWIM section 3, Lifeguard).

Silence: ``failure_detector`` and ``probe``, also for others; how patiently:
``suspicion``, ``awareness``. A host's word: ``crash_detector``, with ``observers`` that watch
streams. What was announced: ``planned_absence`` (ours), ``sleepers`` (theirs). ``path_checks``
looks for blocked streams and narrow paths. All of it ends in ``updates``, which decides what is
believed, and what is worth a packet.
"""
