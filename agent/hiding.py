"""Hides secrets in settings that are shown.

Ours never stand in the file (``agent/config.py``), but an app's options and a handler's command are
its author's, and they have passwords in them. Whoever may use the agent may see the configuration,
and that is more people than may read its file. What is hidden is told by its name, and by the form
of an address; a secret under a harmless name is shown.
"""

import re
from typing import Any

HIDDEN = "(hidden)"
_SECRET = re.compile(
    r"pass(word|wd|phrase|code)?s?$|secret|token|credential|(^|[_.-])(key|pin|psk)s?$"
)
_PLACE = re.compile(r"_file$|_path$|_name$|_id$")
_USER_OF_ADDRESS = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]+@")
_OPTION = re.compile(r"(--?[\w-]*(?:pass|secret|token)[\w-]*=).+", re.IGNORECASE)


def hidden(name: str, value: Any) -> Any:
    """Return a value as it may be shown, under the last part of its name.

    >>> hidden("apps.tapo.options.password", "hunter2"), hidden("api.token_file", "/run/t")
    ('(hidden)', '/run/t')
    >>> hidden("apps.a.options.url", "http://ada:hunter2@lan/"), hidden("x.list", [{"token": 3}])
    ('http://ada:(hidden)@lan/', [{'token': '(hidden)'}])
    """
    last = name.rpartition(".")[2].lower()
    if value and not isinstance(value, bool) and _SECRET.search(last) and not _PLACE.search(last):
        return HIDDEN
    if isinstance(value, dict):
        return {key: hidden(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hidden("", inner) for inner in value]
    if isinstance(value, str):
        return _OPTION.sub(rf"\1{HIDDEN}", _USER_OF_ADDRESS.sub(rf"\1:{HIDDEN}@", value))
    return value
