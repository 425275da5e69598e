"""Which texts MQTT carries: one rule for every name that becomes part of a topic or a header.

A UTF-8 string of MQTT holds no surrogates and no U+0000; with control characters and
non-characters a broker may end the connection (MQTT 5, section 1.5.4), and Mosquitto does. Such
a text is ordinary mojibake: bytes of some other encoding that were read as Latin-1 or UTF-8.
"""

import re
from functools import lru_cache

_FORBIDDEN = (
    "[\x00-\x1f\x7f-\x9f"  # controls: C0, DEL and C1
    "\ud800-\udfff"  # surrogates: halves of a character, which UTF-8 cannot write
    "\ufdd0-\ufdef"  # non-characters, and the last two of each of the 17 planes
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)
_KINDS = {"Cc": "a control character", "Cs": "half of a surrogate pair"}
WILDCARDS = "+#"
TOPIC_BYTES_MAX = 65_535
TOPICS_REMEMBERED_MAX = 1024


def flaw(text: str) -> str:
    r"""Say what MQTT does not carry in a text, such as "a control character, U+0085"; else "".

    >>> flaw("Außen/température")
    ''
    >>> flaw("caf\x85")
    'a control character, U+0085'
    """
    if text.isprintable():  # as nearly all are; what MQTT forbids never is
        return ""
    found = re.search(_FORBIDDEN, text)  # compiled for the first text that asks for it
    if found is None:
        return ""
    # Here, not above: only who has met a flaw needs the table of all characters.
    from unicodedata import category

    kind = _KINDS.get(category(found[0]), "a non-character")
    return f"{kind}, U+{ord(found[0]):04X}"


@lru_cache(maxsize=TOPICS_REMEMBERED_MAX)
def topic_flaw(topic: str) -> str:
    """Say why nothing can be published to a topic (MQTT 5, section 4.7); "" if it can."""
    if not topic:
        return "it is empty"
    if topic.startswith("$"):
        return "a '$' at the start is the broker's"
    for wildcard in WILDCARDS:
        if wildcard in topic:
            return f"{wildcard!r} is a wildcard"
    found = flaw(topic)
    if not found and len(topic.encode()) > TOPIC_BYTES_MAX:
        return f"it has more than {TOPIC_BYTES_MAX} bytes"
    return found and f"it holds {found}"
