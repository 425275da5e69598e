"""What a setting takes, in words, for whoever gave it something else.

The words come from the types in ``agent/config/settings.py``: nothing can be allowed there and not
told here, and no library's text reaches a person.
"""

from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

PLAIN = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: 'a text in "quotes"',
}
SHOWN_CHARACTERS_MAX = 40


def takes(hint: Any) -> str:
    """Return what fits a type.

    >>> takes(Annotated[int, msgspec.Meta(ge=1, le=65535)]), takes(Literal["5", "3.1.1"])
    ('a whole number from 1 to 65535', '"5" or "3.1.1"')
    >>> takes(list[str]), takes(dict[str, str])
    ('a list of texts: ["a", "b"]', 'a table of texts: { NAME = "text" }')
    """
    origin = get_origin(hint)
    if origin is Annotated:
        kind, meta = get_args(hint)[:2]
        return takes(kind) + _range(meta)
    if origin is Literal:
        return _or([_written(value) for value in get_args(hint)])
    if origin is list:
        return 'a list of texts: ["a", "b"]'
    if origin is dict:
        inner = get_args(hint)[1]
        if inner is str:
            return 'a table of texts: { NAME = "text" }'
        return 'a table of commands: { NAME = ["command", "argument"] }'
    assert hint in PLAIN, f"say in words what {hint} takes"
    return PLAIN[hint]


def choices(hint: Any) -> list[str]:
    """Return the texts that a setting can be, if there is a choice of them."""
    allowed = get_args(hint) if get_origin(hint) is Literal else ()
    return [value for value in allowed if isinstance(value, str)]


def shown(value: Any) -> str:
    """Return a value as it stands in the file, shortened.

    >>> shown(True), shown("lann"), shown(["a", 3])
    ('true', '"lann"', '["a",3]')
    """
    text = _written(value)
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "..."


def _written(value: Any) -> str:
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, UnicodeEncodeError):  # TOML has dates, and a variable may be no text
        return repr(value)


def _range(meta: msgspec.Meta) -> str:
    least = meta.ge if meta.gt is None else meta.gt
    if meta.min_length:
        return f" of at least {meta.min_length}"
    if least is None:
        return "" if meta.le is None else f" of at most {meta.le:g}"
    if meta.gt is not None:
        return f" above {least:g}" + ("" if meta.le is None else f", at most {meta.le:g}")
    return f" of at least {least:g}" if meta.le is None else f" from {least:g} to {meta.le:g}"


def _or(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
