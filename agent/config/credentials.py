"""Files that systemd unseals for the service: credentials (systemd.exec(5), "CREDENTIALS").

A password can lie on the disk sealed with the machine's own key, or its TPM, and be readable for as
long as the service runs, by it alone: ``LoadCredentialEncrypted=broker-password:/etc/covey/…`` in a
drop-in. Settings that end in ``_file`` name it by systemd's variable.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from agent.exits import BAD_CONFIG, AgentError

VARIABLE = "CREDENTIALS_DIRECTORY"
SEAL = "covey.seal"
"""The credential with which the agent seals its own keys (``agent/identity/seal.py``)."""
SYSTEM_SEAL = Path("/etc/credstore.encrypted") / SEAL
"""Where systemd looks for it, sealed itself."""
PREFIX = f"${{{VARIABLE}}}/"


def is_credential(text: str) -> bool:
    """Say whether a setting names a file that systemd unseals."""
    return text.startswith(PREFIX)


def file_at(text: str, environ: Mapping[str, str] | None = None) -> Path:
    """Return the file that a setting names. Raises AgentError for a credential without a service.

    >>> str(file_at("${CREDENTIALS_DIRECTORY}/mqtt", {"CREDENTIALS_DIRECTORY": "/run/c"}))
    '/run/c/mqtt'
    """
    environ = os.environ if environ is None else environ
    if not is_credential(text):
        return Path(text)
    directory = environ.get(VARIABLE)
    if directory is None:
        raise AgentError(
            f"{text} is a credential of systemd, and this agent was started with none",
            "name it in a drop-in of the unit: LoadCredentialEncrypted=NAME:FILE (systemd.exec(5))",
            BAD_CONFIG,
        )
    return Path(directory) / text.removeprefix(PREFIX)
