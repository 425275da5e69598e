"""Says in the command line's own words what the agent says in those of its HTTP API.

The agent puts the names of its parameters in backticks: ``accept fewer with `r=1` ``. Here they
become the options and arguments that were typed: ``-r 1``. What click says in the notation of
programs becomes words.
"""

import re

SPELLINGS = {
    "a": "A",
    "add": "--add",
    "all": "--all",
    "b": "B",
    "by": "BY",
    "capacity": "capacity=NUMBER",
    "count": "--count",
    "durability": "--fsync",
    "duration_s": "DURATION",
    "field": "FIELD",
    "filters": "--filter",
    "force": "--force",
    "from": "FROM",
    "forget": "--forget",
    "if_absent": "--if-absent",
    "if_context": "--if-context",
    "limit": "--limit",
    "id": "ID",
    "lines": "--lines",
    "mark": "MARK",
    "move_to": "NEW",
    "name": "NAME",
    "new": "NEW",
    "node_name": "--node-name",
    "number": "NUMBER",
    "old": "OLD",
    "r": "-r",
    "permits": "--permits",
    "reason": "--reason",
    "remove": "--remove",
    "replaces": "--replace",
    "replicas": "--replicas",
    "scope": "--for",
    "sensor": "--sensor",
    "setting": "SETTING",
    "seeds": "--seed",
    "since": "--since",
    "state": "--state",
    "timeout": "--timeout",
    "token": "TOKEN",  # nosec B105 - the word that stands for it in a usage line
    "timeout_s": "--timeout",
    "ttl": "--ttl",
    "ttl_s": "--ttl",
    "upload": "UPLOAD",
    "uses": "--uses",
    "value": "VALUE",
    "w": "-w",
    "weight": "--weight",
}
_NUMBER = r"-?[0-9.]+(?:e[0-9]+)?(?<!\.)"
_RANGE = re.compile(
    rf"is not in the range (?:(?P<least>{_NUMBER})<=?)?x"
    rf"(?:>=?(?P<from_on>{_NUMBER})|<=?(?P<most>{_NUMBER}))"
)
_PARAMETER = re.compile(rf"`({'|'.join(SPELLINGS)})(?:=([^`]*))?`")


def spelled(text: str) -> str:
    """Return a message of the agent with the command line's names for parameters.

    >>> spelled("accept fewer with `r=1`"), spelled("`ttl_s`: from 1 second to a year")
    ('accept fewer with `-r 1`', '`--ttl`: from 1 second to a year')
    """
    return _PARAMETER.sub(_option, text)


def plain(text: str) -> str:
    r"""Return a complaint of click without its notations for ranges and lists.

    >>> plain("Invalid value for '-w': 0 is not in the range x>=1.")
    "Invalid value for '-w': 0 is no number from 1 on."
    >>> plain("5.0 is not in the range 10<=x<=86400."), plain("7 is not in the range x<=2.")
    ('5.0 is no number from 10 to 86400.', '7 is no number up to 2.')
    >>> plain("Missing argument 'SHELL'. Choose from:\n\tbash,\n\tzsh")
    "Missing argument 'SHELL'. Choose from: bash, zsh"
    """
    return " ".join(_RANGE.sub(_in_words, text).split())


def _in_words(found: re.Match[str]) -> str:
    least, most = found["least"] or found["from_on"], found["most"]
    if not most:
        return f"is no number from {least} on"
    return f"is no number from {least} to {most}" if least else f"is no number up to {most}"


def _option(found: re.Match[str]) -> str:
    option, value = SPELLINGS[found[1]], found[2]
    return f"`{option}`" if value is None else f"`{option} {value}`"
