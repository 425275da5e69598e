"""``covey salvage``: the shared keys out of the files of a node that takes no part any more."""

import tempfile
from pathlib import Path

import click

from agent import exits
from agent.cli.output import write_json_lines
from agent.cli.param_types import FILE
from agent.cli.progress import CountProgress
from agent.cli.session import Session, pass_session
from agent.config.paths import Paths
from agent.exits import AgentError
from agent.store.lock import is_held
from agent.text.units import counted

BATCH_KEYS = 500
PLACES = ("data.db", "data/data.db", "removed/data.db", "data/removed/data.db")


@click.command()
@click.argument("directory", type=FILE, required=False)
@click.option("--prefix", default="", help="Only keys that begin like this [all].")
@click.option("--key-file", "key_files", type=FILE, multiple=True, help="A key of its values.")
@pass_session
def salvage(
    session: Session, directory: Path | None, prefix: str, key_files: tuple[Path, ...]
) -> None:
    """Write the shared keys that a node's files hold to stdout, as `covey kv export` does.

    DIRECTORY is the node's, or its data.db; else this agent's own. No agent is asked, nothing is
    changed, and `covey kv import` takes what comes out. Status 6 if rows were damaged.
    """
    from agent.cluster.kv_lines import is_own, line_of
    from agent.store.salvaged_keys import SalvagedDatabase
    from agent.store.value_keys import read_key
    from agent.store.value_seal import ValueSeal

    path = _database(directory or session.agent_paths.data)
    seal = ValueSeal(None, map(read_key, key_files))
    keys = damaged = shut = 0
    with (
        tempfile.TemporaryDirectory(prefix="covey-salvage-") as scratch,
        CountProgress("keys", quiet=session.quiet) as progress,
    ):
        found = SalvagedDatabase(path, Path(scratch))
        batch = []
        for key, record, is_shut in found.rows(seal):
            if is_shut:
                shut += 1
            elif record is None:
                damaged += 1
            elif record.live and key.startswith(prefix) and not is_own(key):
                batch.append(line_of(key, record.live))
                keys += 1
            if len(batch) >= BATCH_KEYS:
                write_json_lines(batch)
                progress.show(keys)
                batch = []
        write_json_lines(batch)
    session.say(f"{counted(keys, 'key')} out of {path}, which was not changed.")
    if shut:
        raise AgentError(
            f"{counted(shut, 'key')} left out: sealed with a key that was not named",
            "name the file that `storage.key_file` named there: --key-file FILE",
            exits.UNHEALTHY,
        )
    if damaged or found.unreadable_bytes or not found.is_in_order:
        raise AgentError(
            f"{path} is damaged: {counted(damaged, 'row')} left out that were found and are not as"
            f" they were written, {found.unreadable_bytes} bytes not readable"
            f"{_GATHERED if not found.is_in_order else ''}",
            "what is written is sound by its checksums; other owners may have the rest",
            exits.UNHEALTHY,
        )


_GATHERED = "; the keys were gathered from single pages, so some may have been deleted before"


def _database(place: Path) -> Path:
    """Return the file that a directory means. Raises AgentError where an agent has it open."""
    path = place
    if place.is_dir():
        candidates = [place / name for name in PLACES]
        path = next((each for each in candidates if each.exists()), candidates[0])
    if is_held(Paths(path.parent, path.parent, path.parent)):
        raise AgentError(
            f"an agent has {path} open; nothing was read",
            "`covey kv export` writes the keys of a covey that runs",
        )
    return path
