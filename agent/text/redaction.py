"""Hides secrets in settings that are shown.

Ours never stand in the file (``agent/config/loader.py``), but an app's options and a handler's
command are its author's, and they have passwords in them. Whoever may use the agent may see the
configuration, and that is more people than may read its file. What is hidden is told by its name,
and by the form of an address; a secret under a harmless name is shown.
"""

import re
from typing import Any

HIDDEN = "(hidden)"
_SECRET = re.compile(
    r"pass(word|wd|phrase|code)?s?$|secret|token|credential|(^|[_.-])(key|pin|psk)s?$"
    r"|(api|access|auth|private|shared)keys?$|pwd$|bearer$|(^|[_.-])auth(orization)?$"
)
_PLACE = re.compile(r"_file$|_path$|_name$|_id$")
_USER_OF_ADDRESS = re.compile(r"(?<=://)([^/@\s:]*):\S+@")
_OPTION = re.compile(
    r"((?:--?[\w-]*(?:pass|secret|token)[\w-]*(?:=|\s+)|\b\w*(?:pass|secret|token)\w*=)).+",
    re.IGNORECASE,
)
_OPTION_ALONE = re.compile(r"--?[\w-]*(pass|secret|token)[\w-]*", re.IGNORECASE)


def hidden(name: str, value: Any) -> Any:
    """Return a value as it may be shown, under the last part of its name.

    >>> hidden("apps.tapo.options.password", "hunter2"), hidden("api.token_file", "/run/t")
    ('(hidden)', '/run/t')
    >>> hidden("apps.a.options.url", "http://ada:hunter2@lan/"), hidden("x.list", [{"token": 3}])
    ('http://ada:(hidden)@lan/', [{'token': '(hidden)'}])
    >>> hidden("x.command", ["mount", "--password", "hunter2", "/mnt"])
    ['mount', '--password', '(hidden)', '/mnt']
    >>> hidden("x.command", "env API_TOKEN=hunter2 run"), hidden("apps.a.options.apiKey", "x")
    ('env API_TOKEN=(hidden)', '(hidden)')
    >>> hidden("apps.a.options.url", "http://ada:p@ss/word@lan/")
    'http://ada:(hidden)@lan/'
    """
    last = name.rpartition(".")[2].lower()
    if value and not isinstance(value, bool) and _SECRET.search(last) and not _PLACE.search(last):
        return HIDDEN
    if isinstance(value, dict):
        return {key: hidden(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list):
        before = ("", *value)
        return [_argument(*pair) for pair in zip(before, value, strict=False)]
    if isinstance(value, str):
        return _OPTION.sub(rf"\1{HIDDEN}", _USER_OF_ADDRESS.sub(rf"\1:{HIDDEN}@", value))
    return value


def _argument(before: Any, value: Any) -> Any:
    """Return a word of a command as it may be shown, behind the one before it."""
    is_secret = isinstance(before, str) and _OPTION_ALONE.fullmatch(before)
    return HIDDEN if is_secret else hidden("", value)
