"""How long a test waits for what must come: decides nothing, but ends a test that would hang.

A test that is right never waits this long, however busy the machine is; so nothing is won by a
smaller number, and a test that fails now and then beside a busy neighbour is lost by it.
"""

GIVE_UP_S = 180.0
