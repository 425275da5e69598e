"""The ground of every protocol: it imports nothing of ours.

Read ``machine`` first: inputs and the time go in, ordered effects come out. Then ``ids`` and
``names`` (who is who), ``errors`` (whose fault it was), ``wire`` (messages as bytes), ``envelope``
(the sealed datagram: who may speak at all), ``hlc`` (a clock that orders what wall clocks cannot),
``tuning`` (every interval and limit, with its reason) and ``trials`` (what others tell is taken in
so that it cannot end us twice).
"""
