"""What the issuer's log says of those who come, of those who did not, and of those who went.

Who is heard, and who is given up, is decided in ``gossip/kv/presence.py`` and ``contact.py``.
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
    _log_missing(before, after)


def _log_missing(before: Registry, after: Registry) -> None:
    """Tell whose share goes to others, and who gets one again."""
    was, now = ({each.id for each in one.missing} for one in (before, after))
    for entry in after.nodes:
        if entry.id in now - was:
            log.warning(
                "%s was not heard for long: others get the partitions that it owns, of which %d "
                "lie there, until it is back (registry epoch %d)",
                entry.name, before.left_at(entry.id), after.epoch,
            )  # fmt: skip
        elif entry.id in was - now:
            log.info(
                "%s is there again, and gets a share (registry epoch %d)", entry.name, after.epoch
            )
