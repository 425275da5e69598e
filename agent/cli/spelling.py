"""Says in the command line's own words what the agent says in those of its HTTP API.

The agent puts the names of its parameters in backticks: ``accept fewer with `r=1` ``. Here they
become the options and arguments that were typed: ``-r 1``.
"""

import re

SPELLINGS = {
    "a": "A",
    "b": "B",
    "duration_s": "DURATION",
    "filters": "--filter",
    "force": "--force",
    "forget": "--forget",
    "limit": "--limit",
    "lines": "--lines",
    "name": "NAME",
    "node_name": "--node-name",
    "r": "-r",
    "seeds": "--seed",
    "state": "--state",
    "timeout": "--timeout",
    "token": "TOKEN",
    "timeout_s": "--timeout",
    "ttl_s": "--ttl",
    "uses": "--uses",
    "w": "-w",
}
_PARAMETER = re.compile(rf"`({'|'.join(SPELLINGS)})(?:=([^`]*))?`")


def spelled(text: str) -> str:
    """Return a message of the agent with the command line's names for parameters.

    >>> spelled("accept fewer with `r=1`"), spelled("`ttl_s`: from 1 second to a year")
    ('accept fewer with `-r 1`', '`--ttl`: from 1 second to a year')
    """
    return _PARAMETER.sub(_option, text)


def _option(found: re.Match[str]) -> str:
    option, value = SPELLINGS[found[1]], found[2]
    return f"`{option}`" if value is None else f"`{option} {value}`"
