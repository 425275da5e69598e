"""Who is there: SWIM with Lifeguard, as pure state machines.

Read in this order:

* what is said: ``messages``; what is known, and which of two claims holds: ``members``;
* how the first changes the second: ``beliefs``, within the bounds of ``plausible``, ``addresses``
  and ``roll``; what we say of ourselves: ``local``;
* how silence is noticed: ``probe``, ``detector``, ``relay``; how patiently: ``suspicion``,
  ``awareness``;
* how news travel: ``rumours``, ``post``; how often we repeat ourselves: ``throttle``;
* how strangers and estranged halves meet: ``introductions``, ``exchange``, ``book``;
* whom to try first: ``reach``, ``contacts``; and all of it together: ``swim``.
"""
