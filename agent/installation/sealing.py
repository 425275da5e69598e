"""The key with which the agent seals its own: made once, sealed by systemd for this machine.

``systemd-creds`` seals it with the machine's key in /var/lib/systemd, and where there is a TPM with
that, too. It binds to a measurement of the boot, PCR 7 by itself, and an update of the firmware
would then lock the node out; whoever can write to this disk has better ways in than to change what
is measured. So the one is named that nothing measures into, 23: systemd 252 seals without any, and
then does not open it.

What systemd can do here is tried, not guessed from versions: containers may not mount, and old ones
know no credentials. Where it cannot, the agent's keys stay in clear. It is tried under another name
than the one that counts, so an installation that is cut off leaves no seal that nobody has tried.

Where keys are sealed already and their seal is not here, none is made: it would open nothing.
"""

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from agent.config.credentials import SEAL
from agent.exits import NO, AgentError
from agent.files.private_files import make_private_directory, replace_private, sync_directory
from agent.identity import at_rest
from agent.identity.seal import KEY_BYTES
from agent.installation.files import IDENTITY, LOAD_SEAL, SEAL_FILE
from agent.installation.system import System

SILENT = "StandardOutput=null"
TO_SEAL = "systemd-creds", "encrypt", f"--name={SEAL}"
WAYS = ("--with-key=auto", "--tpm2-pcrs=23"), ("--with-key=host",)
"""What to seal it with, best first: a TPM that is there is not always one that works."""


class SealState(NamedTuple):
    """Whether the service is to be handed its seal, and what was done for it."""

    is_on: bool
    done: str


def provide(system: System, root: Path, restrictions: list[str]) -> SealState:
    """Make the seal unless it is there, and see whether a service gets it.

    ``restrictions`` are those of the unit. Raises AgentError for a seal that is there and does not
    open here, or is not there: what is sealed with it would not open either.
    """
    place, identity = root / SEAL_FILE, root / IDENTITY

    def opens(credential: str) -> bool:
        trial = [*restrictions, credential, SILENT]
        return system.status_under(trial, "systemd-creds", "cat", SEAL) == 0

    if not place.exists():
        if names := at_rest.sealed(identity):
            raise AgentError(
                f"{identity / names[0]} is sealed, and {place}, to open it, is not on this "
                "machine; no other one was made, and the unit was not changed",
                at_rest.how_to_bring_the_key(identity.parent),
                NO,
            )
        return _make(system, place, opens)
    if opens(LOAD_SEAL):
        return SealState(is_on=True, done="unchanged")
    if not at_rest.sealed(identity):
        raise AgentError(
            f"systemd cannot open {place} on this machine; the unit was not changed",
            f"nothing here is sealed with it: remove it, `rm {place}`, and install again",
            NO,
        )
    raise AgentError(
        f"systemd cannot open {place} on this machine: it was sealed on another one, or this "
        "machine's key or TPM has changed; the unit was not changed",
        f"if you kept the key, seal it anew: `systemd-creds encrypt --name={SEAL} --tpm2-pcrs=23 "
        f"KEPT {place}`. If not, move {place} and /var/lib/covey away, install again, and "
        "`covey join --replace NAME TOKEN`",
        NO,
    )


def _make(system: System, place: Path, opens: Callable[[str], bool]) -> SealState:
    """Make the seal in the best way in which it opens again; where none does, there is none."""
    why = "systemd-creds, of systemd 250 and newer, cannot seal here"
    for way in WAYS:
        sealed = system.output_of(*TO_SEAL, *way, "-", "-", stdin=secrets.token_bytes(KEY_BYTES))
        if sealed is None:
            continue
        trial = place.with_name(f"{place.name}.trial")
        _write(trial, sealed)
        if opens(f"{LOAD_SEAL}:{trial}"):
            trial.replace(place)
            sync_directory(place.parent)
            return SealState(is_on=True, done="written")
        trial.unlink()
        why = "systemd cannot hand credentials to a service here"
    return SealState(is_on=False, done=f"not made: {why}")


def _write(place: Path, sealed: bytes) -> None:
    try:
        if not place.parent.exists():
            make_private_directory(place.parent)
        replace_private(place, sealed)
    except OSError as error:
        raise AgentError(
            f"cannot write {place}: {error.strerror}",
            "what was put in place until then stays; mend this, and run the same command again",
            NO,
        ) from None
