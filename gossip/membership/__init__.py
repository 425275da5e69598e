"""Who is there: SWIM with Lifeguard, as pure state machines.

Read in this order:

* what is said: ``messages``; what is known, and which of two claims holds: ``members``;
* how the first changes the second: ``beliefs``, within the bounds of ``plausible``, ``addresses``
  and ``roll``; what we say of ourselves: ``local``;
* how silence is noticed: ``probe``, ``detector``, ``relay``; how patiently: ``suspicion``,
  ``awareness``; how a host's word shortens that: ``evidence``, ``sentinels``;
* how news travel: ``rumours``, ``post``; how often we repeat ourselves: ``throttle``;
* how strangers and estranged halves meet: ``introductions``, ``exchange`` (by
  ``ledger``, into ``hearsay``), ``book``; what it carries besides: ``facts``;
* whom to try first, and how far it is: ``reach``, ``contacts``, ``coordinates``, ``roundtrips``;
* what applications tell and ask each other on top: ``events`` (by ``lamport``, ``broadcasts`` and
  ``bulletins``), ``queries``, ``forum``;
* and all of it together: ``reader``, ``swim``; for simulations of many, ``company``.
"""
