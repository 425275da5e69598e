"""What a backup leaves out of the shared keys: those that are Covey's own.

They tell of files and of their blocks, whose bodies are no keys and are not in a backup. A name
that came back without them would look like a file, and owners would look for its blocks for ever.
"""

from gossip.bodies.file_records import FILE_PREFIX, OWN_LAST, OWN_PREFIX

BEFORE_THE_FIRST = OWN_LAST
"""Where the listing of keys begins that are in a backup."""


def is_left_out(key: str) -> bool:
    """Say whether a key is not put back, should a backup of a version before have it."""
    return key.startswith(OWN_PREFIX)


def names_file(key: str) -> bool:
    """Say whether a key is the name of a file."""
    return key.startswith(FILE_PREFIX)
