"""Which keys the values of a database need: a file beside it, so that one that lacks is told of.

It is written before the first value is sealed with a key, and again when all values lie as the
configuration asks. Without it (an earlier version made the file, or somebody removed it) values are
taken for being in clear until one is met that is not, which ends the agent with the same error.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from agent.exits import NOT_PERMITTED, AgentError
from agent.files.private_files import replace_private
from agent.store.value_seal import KeyMissing, ValueSeal

KEY_IDS_MAX = 64


class KeyNote:
    """What is noted of a database's keys."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = database.with_name(f"{database.name}.keys")

    def check(self, seal: ValueSeal) -> None:
        """Raise KeyMissing unless all keys that values may need are here. Nothing is changed."""
        ids = self._read()[0]
        missing = [each for each in ids if bytes.fromhex(each) not in seal.known]
        if missing:
            raise KeyMissing(f"what {self._database.name} holds", missing)

    def begin(self, seal: ValueSeal) -> bool:
        """Note that values will be sealed so from now on; tell whether some may lie otherwise.

        It is on disk when this returns. Raises KeyMissing and AgentError.
        """
        self.check(seal)
        ids, everything = self._read()
        mine = seal.key_id.hex()
        if everything == mine:
            return False
        if mine and mine not in ids:
            self._write([*ids, mine], None)
        return True

    def settle(self, seal: ValueSeal) -> None:
        """Note that all values lie so. Raises AgentError."""
        mine = seal.key_id.hex()
        self._write([mine] if mine else [], mine)

    def describe(self) -> tuple[list[str], bool]:
        """Return the ids of the keys that values may need, and whether all need the last one."""
        ids, everything = self._read()
        return ids, everything is not None

    def _read(self) -> tuple[list[str], str | None]:
        """Return the ids, and the one with which all are sealed: "" in clear, None if mixed."""
        if not self._database.exists():
            return [], ""
        try:
            told = json.loads(self._path.read_text(encoding="ascii"))
            ids, everything = told["keys"], told["all"]
            is_sound = all(_is_id(each) for each in ids) and len(ids) <= KEY_IDS_MAX
        except FileNotFoundError:
            return [], ""
        except (OSError, ValueError, KeyError, TypeError):
            return [], None
        return (ids, everything) if is_sound else ([], None)

    def _write(self, ids: Iterable[str], everything: str | None) -> None:
        text = json.dumps({"keys": list(ids), "all": everything})
        try:
            replace_private(self._path, f"{text}\n".encode())
        except OSError as error:
            raise AgentError(
                f"{self._path}: {error.strerror}; no value was sealed with another key",
                "check that the disk has space and that the agent's user may write there",
                NOT_PERMITTED,
            ) from None


def _is_id(text: object) -> bool:
    return isinstance(text, str) and bool(bytes.fromhex(text))
