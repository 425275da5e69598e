"""A member that lies: ``python -m tests.live.harness.liar HOST PORT IDENTITY LIFE VICTIM BOOT``.

Holds the keys of the identity in that directory, in its life LIFE, and tells the agent at HOST
without end that the VICTIM is dead in its life BOOT, ahead of all that this one says of itself.
Ids and lives are hexadecimal.
"""

import itertools
import socket
import sys
import time
from pathlib import Path

from agent.identity.identity import load
from gossip.core.envelope import Envelope
from gossip.core.wire import pack
from gossip.membership.model.messages import DATAGRAMS, Dead

PAUSE_S = 0.005
AHEAD = 8


def main() -> None:
    """Lie until somebody ends it."""
    host, port, folder, life, victim, boot = sys.argv[1:]
    who = load(Path(folder))
    envelope = Envelope(who.cluster_id, who.node_id, int(life, 16), who.keyring())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        for count in itertools.count():
            lies = [
                DATAGRAMS.encode(
                    Dead(int(victim, 16), int(boot, 16), count // AHEAD + each, who.node_id)
                )
                for each in range(AHEAD)
            ]
            mouth.sendto(envelope.seal(pack(lies), 1), (host, int(port)))
            time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
