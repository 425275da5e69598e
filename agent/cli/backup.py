"""``covey backup``: the whole covey as one file, made while it runs; looked at, and put back."""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from agent import exits
from agent.cli.confirm import confirm
from agent.cli.output import output_option, write_facts, write_json
from agent.cli.param_types import FILE
from agent.cli.progress import CountProgress, Progress
from agent.cli.recovery import until_generation
from agent.cli.session import Session, pass_session
from agent.exits import AgentError
from agent.text.units import counted
from edge_apps.client import ApiError, Client

if TYPE_CHECKING:
    from agent.backup.backup_seal import BackupKey
    from agent.backup.contents import Contents, KeyGap
    from agent.backup.key_pages import SavedKey, SavedPage
    from agent.backup.parts import BackupFile, BackupHeader, UnfinishedBackup

F = TypeVar("F", bound=Callable[..., Any])

TRIES = 3
"""So often a page is asked for of which too few owners answered."""
PIECE_BYTES = 1024 * 1024
TRANSFER_S = 60.0
TIMEOUT_S = 10.0
EXTRA_WAIT_S = 120.0
"""A page of hundreds of keys, behind others, on a busy card."""
MODE = 0o600
LOOK_KEYS = 100
SHOWN_MAX = 10
OUTCOMES = ("written", "unchanged", "different", "refused", "indeterminate")

file_argument = click.argument("file", type=FILE)


@click.group()
def backup() -> None:
    """Save the whole covey to a file while it runs, and put it back."""


def secret_options(function: F) -> F:
    """Add the options that name the secret of a sealed backup."""
    for name, what in (("key-file", "Seal"), ("passphrase-file", "Seal")):
        text = f"{what} it, or open what was sealed, with what this file holds."
        function = click.option(f"--{name}", type=FILE, help=text)(function)
    return function


def _secret(key_file: Path | None, passphrase_file: Path | None) -> tuple[str, bytes] | None:
    """Return of which kind a secret is, and the secret. Raises AgentError."""
    from agent.backup.backup_seal import KEY_FILE, PASSPHRASE, read_secret

    if key_file is not None and passphrase_file is not None:
        raise AgentError(
            "a backup is sealed with a key file or a passphrase", "name one of them", exits.USAGE
        )
    for by, path in ((KEY_FILE, key_file), (PASSPHRASE, passphrase_file)):
        if path is not None:
            return by, read_secret(path, by)
    return None


def _key_to(header: "BackupHeader", secret: tuple[str, bytes] | None) -> "BackupKey | None":
    """Return the key to a backup; None where it needs none, or none is here. Raises AgentError.

    Whoever names a secret relies on it: what has no seal anybody can have written.
    """
    from agent.backup.backup_seal import key_of

    if secret is None:
        return None
    by, data = secret
    if header.sealed is None:
        raise AgentError(
            "this backup has no seal, so anybody may have written it; nothing was changed",
            "take the sealed one; without a secret named it is taken for what it is",
            exits.NO,
        )
    if by != header.sealed.by:
        raise AgentError(
            f"this backup is sealed with a {header.sealed.by}; nothing was changed",
            f"name it: --{header.sealed.by}{'' if by == 'passphrase' else '-file'} FILE",
            exits.USAGE,
        )
    return key_of(header.sealed, data)


# Making one


@backup.command()
@file_argument
@secret_options
@click.option("--resume", is_flag=True, help="Go on with what a backup that was cut off has left.")
@click.option("--keys-only", is_flag=True, help="Without what is agreed on: also with no majority.")
@click.option("--incomplete", is_flag=True, help="Take what can be read, where owners are away.")
@output_option
@pass_session
def create(
    session: Session,
    file: Path,
    key_file: Path | None,
    passphrase_file: Path | None,
    output: str,
    *,
    resume: bool,
    keys_only: bool,
    incomplete: bool,
) -> None:
    """Save all shared keys, and what is agreed on, to FILE or into a directory.

    It has everything that was acknowledged by a majority of its owners before it began, and of what
    is written meanwhile some, key by key. The file is for its owner alone: all values are in it.
    Not in it are files (`covey file ls`): where there are some, it says so.
    """
    from agent.backup.parts import AGREED, REGISTRY

    secret = _secret(key_file, passphrase_file)
    client = session.client()
    covey = _covey(client)
    if file.is_dir():
        if resume:
            raise AgentError(
                f"{file} is a directory; nothing was saved",
                "name the file to go on with",
                exits.USAGE,
            )
        file /= f"{covey['name']}-{_now():%Y%m%dT%H%M%SZ}.covey-backup"
    if file.exists():
        raise AgentError(f"{file} is there already; nothing was saved", "take another name")
    unfinished = file.with_name(f".{file.name}.unfinished")
    with _writer(unfinished, covey, secret, resume=resume) as (writer, progress):
        if not writer.number:
            writer.write(REGISTRY, client.request("GET", "/api/v1/registry").body)
            if not keys_only:
                saved = client.request("GET", "/api/v1/snapshot", timeout_s=TRANSFER_S).body
                for at in range(0, len(saved), PIECE_BYTES):
                    writer.write(AGREED, saved[at : at + PIECE_BYTES])
        _save_keys(session, client, writer, progress, incomplete=incomplete)
        writer.end(*progress.counts(), _now().isoformat(), is_whole=progress.is_whole)
    unfinished.replace(file)
    _sync(file.parent)
    _tell_made(session, file, progress, output, has_files=_has_files(client))


class _Saved:
    """How far a backup has come."""

    def __init__(self) -> None:
        self.after = ""
        self.keys = 0
        self.versions = 0
        self.is_whole = True

    def take(self, page: "SavedPage") -> None:
        """A page is in the file."""
        self.keys += len(page.keys)
        self.versions += sum(len(each.versions) for each in page.keys)
        if page.keys:
            self.after = max(self.after, page.keys[-1].key)

    def counts(self) -> tuple[int, int]:
        """Return how many keys and versions there are so far."""
        return self.keys, self.versions


def _first_shown(client: Client, path: str, what: str) -> dict[str, Any]:
    """Return a page of a list that has something, or the last one.

    A page of what has expired alone has nothing, and goes on.
    """
    after = ""
    while True:
        page: dict[str, Any] = client.get(path, after=after, limit=LOOK_KEYS)
        if page[what] or page.get("outcome", "ok") != "ok" or not (after := page["next"]):
            return page


def _has_files(client: Client) -> bool:
    """Say whether this covey has any files, as far as is known."""
    try:
        return bool(_first_shown(client, "/api/v1/files", "files")["files"])
    except ApiError:  # such as from an agent of a version before
        return False


def _covey(client: Client) -> dict[str, Any]:
    covey: dict[str, Any] | None = client.get("/api/v1/status").get("cluster")
    if covey is None:
        raise AgentError("this agent is in no covey; nothing was done", "see `covey status`")
    return covey


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@contextmanager
def _writer(
    path: Path, covey: dict[str, Any], secret: tuple[str, bytes] | None, *, resume: bool
) -> "Iterator[tuple[UnfinishedBackup, _Saved]]":
    """Yield what appends to a new file, or to one that was left. Raises AgentError."""
    from agent.backup.backup_seal import new_terms
    from agent.backup.parts import BackupHeader, UnfinishedBackup, write_header

    try:
        if resume:
            with _taken_up(path, covey, secret) as taken:
                yield taken
            return
        terms = new_terms(secret[0]) if secret else None
        header = BackupHeader(
            secrets.token_hex(16), covey["id"], covey["name"], _now().isoformat(), terms
        )
        path.unlink(missing_ok=True)  # another's would stay readable to whoever made it
        with _open(path, os.O_CREAT | os.O_EXCL) as file:
            write_header(file, header)
            yield UnfinishedBackup(file, header, _key_to(header, secret)), _Saved()
            _flush(file)
    except OSError as error:
        raise AgentError(
            f"{path} was not written to its end: {error.strerror}",
            "is there room? then go on with --resume",
        ) from None


@contextmanager
def _open(path: Path, flags: int) -> Iterator[BinaryIO]:
    handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, MODE)
    with os.fdopen(handle, "wb") as file:
        if os.fstat(handle).st_uid != os.geteuid():
            raise AgentError(
                f"{path} is somebody else's; nothing was saved",
                "remove it, and begin anew without --resume",
                exits.NOT_PERMITTED,
            )
        os.fchmod(handle, MODE)
        yield file


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _taken_up(
    path: Path, covey: dict[str, Any], secret: tuple[str, bytes] | None
) -> "Iterator[tuple[UnfinishedBackup, _Saved]]":
    """Go on behind the last part that is as it was written."""
    from agent.backup.key_pages import decode_page
    from agent.backup.parts import END, KEYS, BackupFile, DamagedPlace, UnfinishedBackup

    with BackupFile(path) as reader:
        header, end, saved = reader.header, reader.begin, _Saved()
        _check_same(path, header, covey, secret)
        key = _key_to(header, secret)
        digests = []
        for each in reader.read(key):
            if isinstance(each, DamagedPlace) or each.kind == END:
                break
            digests.append(each.digest)
            end = each.end
            if each.kind == KEYS and each.body is not None:
                saved.take(decode_page(each.body))
    with _open(path, 0) as file:
        file.truncate(end)
        file.seek(end)
        yield UnfinishedBackup(file, header, key, digests), saved
        _flush(file)


def _check_same(
    path: Path, header: "BackupHeader", covey: dict[str, Any], secret: tuple[str, bytes] | None
) -> None:
    if header.covey != covey["id"]:
        raise AgentError(
            f"{path} is of another covey, {header.name!r:.60}; nothing was saved",
            "take another name",
        )
    if (header.sealed is None) != (secret is None):
        raise AgentError(
            f"{path} was begun {'without' if header.sealed is None else 'with'} a seal; nothing was"
            " saved",
            "name the secret that it was begun with, or none",
            exits.USAGE,
        )


def _save_keys(
    session: Session, client: Client, writer: "UnfinishedBackup", saved: _Saved, *, incomplete: bool
) -> None:
    """Append all pages; after each it rests for as long as that took, so others come first."""
    from agent.backup.key_pages import decode_page
    from agent.backup.left_out import BEFORE_THE_FIRST
    from agent.backup.parts import KEYS

    saved.after = max(saved.after, BEFORE_THE_FIRST)
    with CountProgress("keys", quiet=session.quiet) as progress:
        while True:
            began = time.monotonic()
            body = _page(client, saved.after)
            page = decode_page(body)
            if not page.is_whole and not incomplete:
                raise AgentError(
                    f"not enough owners of some keys behind {saved.after!r} answered; what was "
                    f"saved so far is kept",
                    "see `covey members`; go on with --resume when they are back, or take what "
                    "there is with --incomplete",
                    exits.UNHEALTHY,
                )
            if page.keys:
                writer.write(KEYS, body)
            saved.is_whole = saved.is_whole and page.is_whole
            saved.take(page)
            progress.show(saved.keys)
            if not page.next:
                return
            saved.after = page.next
            time.sleep(time.monotonic() - began)


def _page(client: Client, after: str) -> bytes:
    from agent.backup.key_pages import decode_page

    body = b""
    for _ in range(TRIES):
        body = client.request("GET", "/api/v1/backup", query={"after": after}).body
        if decode_page(body).is_whole:
            break
    return body


def _tell_made(
    session: Session, file: Path, saved: _Saved, output: str, *, has_files: bool
) -> None:
    told = {
        "file": str(file),
        "keys": saved.keys,
        "versions": saved.versions,
        "size_bytes": file.stat().st_size,
        "whole": saved.is_whole,
    }
    if output == "json":
        write_json(told | {"files_left_out": has_files})
    else:
        write_facts(told | {"whole": "yes" if saved.is_whole else "no"})
    if has_files:
        session.say(
            "Note: this covey has files, which are not in it: `covey file ls` lists them, and "
            "`covey file get` saves one."
        )
    if not saved.is_whole:
        raise AgentError(
            "this backup is not whole: not enough owners of some keys answered",
            "see `covey members`; make another one when they are back",
            exits.UNHEALTHY,
        )
    session.say(f"`covey backup verify {file}` looks whether it is as it was written.")


# Looking at one


@backup.command()
@file_argument
@secret_options
@output_option
@pass_session
def verify(
    session: Session, file: Path, key_file: Path | None, passphrase_file: Path | None, output: str
) -> None:
    """Look through FILE: what is in it, and whether all of it is as it was written.

    No covey is asked. Without the secret of a sealed one its digests are compared, and no keys
    counted. Status 1 if something is damaged, missing, or was never in it.
    """
    from agent.backup.contents import look_through
    from agent.backup.parts import BackupFile

    secret = _secret(key_file, passphrase_file)
    with BackupFile(file) as reader, Progress(quiet=session.quiet) as progress:
        found = look_through(reader, _key_to(reader.header, secret), progress.show)
        told = _told(reader, found, is_open=reader.header.sealed is None or secret is not None)
    if output == "json":
        write_json(told)
    else:
        write_facts({name: _text(value) for name, value in told.items()})
    _complain(file, found, is_open=told["keys"] is not None)


def _told(reader: "BackupFile", found: "Contents", *, is_open: bool) -> dict[str, Any]:
    header = reader.header
    return {
        "covey": header.covey,
        "name": header.name,
        "begun_at": header.begun_at,
        "finished_at": found.end.finished_at if found.end else None,
        "sealed": header.sealed.by if header.sealed else None,
        "keys": found.keys if is_open else None,
        "versions": found.versions if is_open else None,
        "agreed_bytes": found.agreed_bytes if is_open else None,
        "parts": found.parts,
        "size_bytes": reader.size_bytes,
        "unknown_kinds": sorted(found.unknown_kinds),
        "intact": found.is_intact
        if is_open
        else not found.holes and found.is_in_order and found.has_end,
        "whole": found.is_whole if is_open else None,
        "damaged": [hole._asdict() for hole in found.holes],
    }


def _text(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return (
            ", ".join(map(str, value)) if value and not isinstance(value[0], dict) else len(value)
        )
    return "-" if value is None else value


def _complain(file: Path, found: "Contents", *, is_open: bool) -> None:
    """Raise AgentError for what is not in order, with what of it can be read."""
    hint = "`covey backup restore --damaged` puts back what is readable; better take another copy"
    if found.holes:
        raise AgentError(f"{file} is damaged: {'; '.join(map(_place, found.holes))}", hint)
    if not found.is_in_order:
        raise AgentError(f"{file} has not the parts that were written", hint)
    if not found.has_end or (is_open and found.end is None):
        raise AgentError(f"{file} ends too soon: it was cut off, or never finished", hint)
    if found.end is not None and not found.end.is_whole:
        raise AgentError(
            f"{file} is as it was written, but not enough owners of some keys answered then",
            "another backup may have them",
        )


def _place(hole: "KeyGap") -> str:
    between = (
        f"behind {hole.after!r:.80}" if hole.after else "from the first on",
        f"before {hole.before!r:.80}" if hole.before else "up to the next that is readable",
    )
    return f"bytes {hole.start} to {hole.end} (keys {' and '.join(between)} may be missing)"


# Putting one back


@backup.command()
@file_argument
@secret_options
@click.option("--merge", is_flag=True, help="Into a covey that has keys: what is there stays.")
@click.option("--prefix", default="", help="Only shared keys that begin like this, and no more.")
@click.option("--keys-only", is_flag=True, help="Leave what is agreed on as it is.")
@click.option("--damaged", is_flag=True, help="Put back what is readable of a damaged file.")
@click.option("--yes", is_flag=True, help="Do it without being asked.")
@output_option
@pass_session
def restore(
    session: Session,
    file: Path,
    key_file: Path | None,
    passphrase_file: Path | None,
    prefix: str,
    output: str,
    *,
    merge: bool,
    keys_only: bool,
    damaged: bool,
    yes: bool,
) -> None:
    """Put back what FILE has: into a covey without keys, or beside what is there with --merge.

    A key that has other values by now is left alone, and named. What is agreed on is put back where
    one node votes alone and there is no --merge. Run it again where something was not written.
    """
    from agent.backup.contents import agreed_state, look_through
    from agent.backup.parts import BackupFile

    secret = _secret(key_file, passphrase_file)
    with BackupFile(file) as reader:
        key = _key_to(reader.header, secret)
        if reader.header.sealed is not None and key is None:
            raise AgentError(
                f"{file} is sealed with a {reader.header.sealed.by}; nothing was changed",
                "name it with --key-file or --passphrase-file",
                exits.USAGE,
            )
        found = look_through(reader, key)
        if not damaged:
            _check_intact(file, found)
        client, header = session.client(), reader.header
        covey = _covey(client)
        if not merge:
            _check_is_empty(client)
        if covey["id"] != header.covey:
            session.say(f"Note: {file} is of another covey, {header.name} ({header.covey}).")
        agreed = b"" if merge or keys_only or prefix else agreed_state(reader, key)
        if not yes:
            confirm(
                f"{counted(found.keys, 'key')} of {header.begun_at} are put into {covey['name']}"
                f"{', and all that is agreed on is replaced' if agreed else ''}",
                "`covey backup restore FILE --yes` does it without asking",
            )
        if agreed:
            _restore_agreed(session, agreed, header)
        counts, troubles = _restore_keys(session, reader, key, prefix)
    _tell_restored(session, counts, troubles, output, is_agreed=bool(agreed))


def _check_intact(file: Path, found: "Contents") -> None:
    try:
        _complain(file, found, is_open=True)
    except AgentError as error:
        raise AgentError(f"{error.message}; nothing was changed", error.hint) from None


def _check_is_empty(client: Client) -> None:
    page = _first_shown(client, "/api/v1/kv", "entries")
    if page["outcome"] != "ok":
        raise AgentError(
            "not enough owners answered to know whether there are keys; nothing was changed",
            "see `covey members`, and try again",
            exits.UNHEALTHY,
        )
    if page["entries"]:
        raise AgentError(
            "this covey has keys; nothing was changed",
            "--merge puts back what is missing, and leaves alone what is there",
        )


def _restore_agreed(session: Session, saved: bytes, header: "BackupHeader") -> None:
    client = session.client()
    query = {"of": header.covey}
    told = client.request(
        "PUT", "/api/v1/snapshot", query=query, body=saved, timeout_s=TRANSFER_S
    ).json()
    until_generation(session, told["restored"])
    session.say(f"What is agreed on is that of {told['saved_at']}, in a new generation.")


def _restore_keys(
    session: Session, reader: "BackupFile", key: "BackupKey | None", prefix: str
) -> tuple[dict[str, int], list[dict[str, str]]]:
    from agent.backup.contents import pages
    from agent.backup.left_out import is_left_out, names_file

    counts, troubles, files = dict.fromkeys(OUTCOMES, 0), [], 0
    with Progress(quiet=session.quiet) as progress:
        client = session.hasty_client()
        for page, done in pages(reader, key):
            files += sum(names_file(each.key) for each in page.keys)
            wanted = [each for each in page.keys if each.key.startswith(prefix)]
            for piece in _pieces([each for each in wanted if not is_left_out(each.key)]):
                told = _restore_piece(client, page.fields, piece)
                troubles += told.pop("troubles")
                for name, count in told.items():
                    counts[name] += count
            progress.show(done)
    if files:
        session.say(
            f"Note: it has the names of {counted(files, 'file')}, which were left out: what they "
            "held is not in a backup."
        )
    return counts, troubles


def _pieces(keys: "list[SavedKey]") -> "Iterator[tuple[SavedKey, ...]]":
    from agent.backup.key_pages import PAGE_BYTES_WANTED

    piece: list[SavedKey] = []
    size_bytes = 0
    for each in keys:
        if piece and size_bytes + each.size_bytes() > PAGE_BYTES_WANTED:
            yield tuple(piece)
            piece, size_bytes = [], 0
        piece.append(each)
        size_bytes += each.size_bytes()
    if piece:
        yield tuple(piece)


def _restore_piece(client: Client, fields: int, piece: "tuple[SavedKey, ...]") -> dict[str, Any]:
    from agent.backup.key_pages import SavedPage, encode_page

    told: dict[str, Any] = client.request(
        "PUT",
        "/api/v1/backup",
        query={"timeout": TIMEOUT_S},
        body=encode_page(SavedPage(fields, piece)),
        timeout_s=TIMEOUT_S + EXTRA_WAIT_S,
    ).json()
    return told


def _tell_restored(
    session: Session,
    counts: dict[str, int],
    troubles: list[dict[str, str]],
    output: str,
    *,
    is_agreed: bool,
) -> None:
    if output == "json":
        write_json({**counts, "agreed": is_agreed, "troubles": troubles})
    else:
        write_facts({**counts, "agreed": "yes" if is_agreed else "no"})
    for each in troubles[:SHOWN_MAX]:
        session.say(f"{each['key']}: {each['outcome']}: {each['reason']}")
    if len(troubles) > SHOWN_MAX:
        session.say(f"and {len(troubles) - SHOWN_MAX} more; `-o json` has all")
    if counts["indeterminate"] or counts["refused"]:
        raise AgentError(
            f"{counted(counts['indeterminate'] + counts['refused'], 'key')} may not be there",
            "run it again with --merge: what is there already is left alone",
            exits.UNHEALTHY,
        )
    if counts["different"]:
        raise AgentError(
            f"{counted(counts['different'], 'key')} had other values, which were left alone",
            "what is to be as in the backup has to be deleted first",
        )
