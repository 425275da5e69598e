"""Commands as a person can copy them: for the agent that was spoken to, and not for another.

The agent and the command line name commands in backticks: ``start it with `covey run` ``. Whoever
gave ``--dir`` and copies one without it would act on another agent, the one of their user or of
the machine. So what is told goes through ``here``, which adds the option. Commands that are meant
for another device stay as they are: there, the directory is another, or none.
"""

import re
from contextvars import ContextVar
from pathlib import Path

_directory: ContextVar[str] = ContextVar("directory", default="")

_COMMAND = re.compile(
    r"(?<=`)covey (?=(?!service|demo|simulate|completion)[a-z](?![^`]*--help)[^`]*`)"
)
_SENTENCE = re.compile(r"(?<=[.;])(?= )")
_ELSEWHERE = re.compile(
    r"` (works )?there\b|\bthere: `|\bwhere (it|this|the|no)\b|\b[Oo]n (a|the other|another)\b"
    r"|\bon \S+: `|` printe?[sd]\b|\bolder than\b|\bends when\b|` ran\b|--now`"
)
"""By such words a sentence says that its commands are for another device, or not to be typed."""


def spoke_to(directory: Path | None) -> None:
    """Note which directory ``--dir`` named; None when it was not given."""
    _directory.set(str(directory) if directory else "")


def _command() -> str:
    """Return how to call ``covey`` for the same agent once more."""
    import shlex

    directory = _directory.get()
    return f"covey --dir {shlex.quote(directory)}" if directory else "covey"


def here(text: str) -> str:
    """Return a text for a person, with the directory in its commands.

    >>> spoke_to(Path("/tmp/my a"))
    >>> here("`covey run` starts it; on the other device: `covey join TOKEN`")
    "`covey --dir '/tmp/my a' run` starts it; on the other device: `covey join TOKEN`"
    >>> spoke_to(None)
    """
    if not _directory.get():
        return text
    return "".join(map(_completed, _SENTENCE.split(text)))


def _completed(sentence: str) -> str:
    if _ELSEWHERE.search(sentence):
        return sentence
    return _COMMAND.sub(lambda _: f"{_command()} ", sentence)
