"""What the issuer's log says of those who come, and of those who did not.

Who is heard, and who is given up, is decided in ``gossip/kv/presence.py``.
"""

import logging

from gossip.registry.registry import Registry

log = logging.getLogger(__name__)


def log_changes(before: Registry, after: Registry) -> None:
    """Tell who is absent in one of two registries and not in the other."""
    was, now = ({each.id for each in one.absent} for one in (before, after))
    for entry in after.nodes:
        if entry.id in was - now:
            what = "drains, and gets nothing" if entry.drains else "gets its partitions"
            log.info("%s is there and %s (registry epoch %d)", entry.name, what, after.epoch)
        elif entry.id in now - was:
            log.warning(
                "%s went before it had taken over anything; what it was to get goes to "
                "others, until it is back (registry epoch %d)",
                entry.name,
                after.epoch,
            )
