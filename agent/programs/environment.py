"""Which of the agent's variables a program gets that it starts.

A list of what is passed on, not of what is held back: a secret that somebody put into the agent's
environment has a name that nobody has thought of. What is on it says where things are, and which
language and time a person wants.
"""

from collections.abc import Collection, Mapping

PASSED_ON = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LANGUAGE"),
        # Where an interpreter outside of the usual places finds itself.
        *("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"),
    }
)
LOCALE = "LC_"


def passed_on(environ: Mapping[str, str], more: Collection[str] = ()) -> dict[str, str]:
    """Return what a program gets of an environment; ``more`` names what its owner adds.

    >>> passed_on({"PATH": "/bin", "LC_TIME": "C", "AWS_SECRET": "x", "PORT": "1"}, ["PORT"])
    {'PATH': '/bin', 'LC_TIME': 'C', 'PORT': '1'}
    """
    return {
        name: value
        for name, value in environ.items()
        if name in PASSED_ON or name.startswith(LOCALE) or name in more
    }
