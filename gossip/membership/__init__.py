"""Who is there: SWIM with Lifeguard, as pure state machines.

Read in this order:

* what is said: ``messages``; what is known, and which of two claims holds: ``members``;
* how the first changes the second: ``updates``, within the bounds of ``plausible``, ``addresses``
  and ``member_list``; what we say of ourselves: ``local``;
* how silence is noticed: ``probe``, ``detector``; how patiently: ``suspicion``,
  ``awareness``; how a host's word shortens that: ``crash_detector``, ``observers``;
* how news travel: ``broadcast_queue``, ``outbound``; how often we repeat ourselves: ``throttle``;
* how strangers and estranged halves meet: ``bootstrap``, ``exchange`` (by
  ``table_digest``, into ``remote_merge``), ``book``; what it carries besides: ``facts``;
* whom to try first, and how far it is: ``reach``, ``reachability``, ``coordinates``, ``rtt_service``;
* what applications tell and ask each other on top: ``events`` (by ``lamport`` and
  ``event_sync``), ``queries``, ``event_plane``;
* and all of it together: ``reader``, ``swim``; for simulations of many, ``company``.
"""
