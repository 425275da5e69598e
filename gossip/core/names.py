"""Names of nodes, coveys and apps: what may be one, wherever it is made, read or completed.

Names end up in more places than any other text: in tables and logs, in URLs and MQTT topics, in
environments of handlers, and by completion on the command line of a shell. So they are the same
few characters everywhere, none of which means anything to any of these; and what arrives under
another name, from whomever, is malformed.
"""

import re
from typing import Annotated

import msgspec

NAME_CHARACTERS_MAX = 63
NAME_PATTERN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""To be matched in full."""
NAME_RULE = "1 to 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends"

Name = Annotated[str, msgspec.Meta(pattern=rf"\A{NAME_PATTERN.pattern}\Z")]
"""A name on the wire: a decoder refuses what is none."""


def is_name(text: str) -> bool:
    r"""Say whether a text may be a name.

    >>> is_name("kitchen-2"), is_name("x$(id)"), is_name("ash\n"), is_name("")
    (True, False, False, False)
    """
    return NAME_PATTERN.fullmatch(text) is not None
