"""What can be said of this device without an agent: its disk, certificate, multicast, packages.

The agent runs these for ``GET /api/v1/doctor``; ``covey doctor`` runs them itself when no agent
answers, because that is when somebody needs them most.
"""

import contextlib
import errno
import os
import secrets
import shutil
import socket
import sqlite3
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path

from agent.admission.former_membership import FormerMembership, recorded_parting
from agent.config.credentials import SYSTEM_SEAL
from agent.config.paths import SYSTEM_DATA, Paths, may_be_there, service_is_installed
from agent.doctor.findings import Finding, fail, ok, warn
from agent.exits import AgentError
from agent.identity import at_rest, identity, spares
from agent.identity.seal import seal_here
from agent.net.interfaces import Interface, best_first, choose, scan
from agent.store.disk_room import used_percent
from agent.store.key_note import KeyNote
from agent.system.wall_clock import flaw
from agent.text.units import counted

MIB = 1024 * 1024
FREE_FAIL_BYTES, FREE_WARN_BYTES = 16 * MIB, 128 * MIB
SYNCS, SYNC_BYTES = 3, 4096
SYNC_WARN_S, SYNC_FAIL_S = 0.1, 2.0
SYNC_PATIENCE_S = 10.0
EXPIRY_WARN_S = 21 * 86400.0
MDNS_GROUP, MDNS_GROUP6, MDNS_PORT = "224.0.0.251", "ff02::fb", 5353
MULTICAST_WAIT_S, LAST_LOOK_S = 0.5, 0.01
HEARD_MAX = 1000
"""Of other people's questions; on no network that works are there so many in a second."""
QUESTION = b"\x06_covey\x04_udp\x05local\x00\x00\x0c\x00\x01"
"""Who offers Covey's service here? The one question that our listeners answer (RFC 6762)."""
WAL_RESET_MENDED = (3, 51, 3)
OUR_PACKAGES = ("gossip", "agent", "edge_apps")
OUR_DISTRIBUTION = "covey"


def examine_device(
    paths: Paths, interfaces: Sequence[str], disk_percent_max: float, *, mdns: bool
) -> list[Finding]:
    """Look at all of it. Takes a second, ten where the disk hangs: not for an event loop."""
    from importlib.metadata import packages_distributions  # for the doctor's visits alone

    return [
        certificate(paths.identity, is_removed=_is_removed(paths)),
        sealed_keys(paths),
        sealed_values(paths),
        disk(paths.data, disk_percent_max),
        sqlite(sqlite3.sqlite_version),
        packages(packages_distributions()),
        *multicast(best_first(choose(scan(), interfaces)), mdns=mdns),
    ]


def _is_removed(paths: Paths) -> bool:
    """Say whether this node was told that it has no place any more."""
    try:
        return recorded_parting(paths) is FormerMembership.REMOVED
    except AgentError:  # who may not look there is told so of the disk
        return False


def certificate(
    directory: Path, now_s: float | None = None, *, is_removed: bool = False
) -> Finding:
    """Look whether this node belongs to a covey, and until when."""
    now_s = time.time() if now_s is None else now_s
    try:
        me = identity.load(directory)
    except AgentError as error:
        return fail("certificate", error.message, error.hint)
    if is_removed:
        return fail(
            "certificate",
            f"{me.node_name} was removed from {me.cluster_name}: its certificate opens nothing.",
            "`covey join TOKEN` makes it a member again, as a new node.",
        )
    if (wrong := flaw(now_s, *me.plausible)) is not None:
        return fail("certificate", f"{wrong.message}.", wrong.hint)
    if me.is_issuer and not at_rest.is_closed_to_us(spares.read(me.authority_key_file) or b""):
        try:
            me.authority_private_key()
        except AgentError as error:
            return fail("certificate", error.message, error.hint)
    until = datetime.fromtimestamp(me.valid_until, UTC).strftime("%Y-%m-%d")
    if me.valid_until < now_s:
        return fail(
            "certificate",
            f"the certificate of {me.node_name} was valid until {until}.",
            "Start the agent where it reaches a member, and that one the founder: they renew it.",
        )
    if me.valid_until - now_s < EXPIRY_WARN_S:
        return warn(
            "certificate",
            f"the certificate of {me.node_name} is valid until {until} only, and was not renewed.",
            "Nodes that let others in renew it: see in `covey members` whether all are away.",
        )
    return ok("certificate", f"{me.node_name} of {me.cluster_name}, valid until {until}.")


def sealed_values(paths: Paths) -> Finding:
    """Look whether values of shared keys are sealed on this disk, and with which key."""
    ids, all_alike = KeyNote(paths.data_db).describe()
    if not ids and all_alike:
        return ok("sealed-values", "values of shared keys lie in clear on this disk.")
    named = f"key {ids[-1]}" if ids else "another key"
    if all_alike:
        return ok("sealed-values", f"all values of shared keys are sealed with {named}.")
    return warn(
        "sealed-values",
        f"values of shared keys are being written anew; so far they need {' and '.join(ids)}.",
        "Let the agent run, and keep all keys until it is done.",
    )


def sealed_keys(paths: Paths) -> Finding:
    """Look whether this node's keys are sealed at rest, and if not, why."""
    try:
        if not paths.identity.is_dir():
            return ok("sealed-keys", "there are no keys yet.")
        in_clear, has_seal = at_rest.in_clear(paths.identity), seal_here() is not None
        at_rest.check_key(paths.identity)
        sealed = at_rest.sealed(paths.identity)
    except OSError as error:
        return warn("sealed-keys", f"{paths.identity} cannot be read: {error}.", "Check its mode.")
    except AgentError as error:
        return fail("sealed-keys", error.message, error.hint or "")
    if sealed and not has_seal and not _service_gets_seal(paths):
        told = f"{sealed[0]} is sealed, and its key is not here: the agent does not start."
        return fail("sealed-keys", told, at_rest.how_to_bring_the_key(paths.data))
    if not in_clear:
        return ok("sealed-keys", "this node's keys are sealed with a key that systemd keeps.")
    what = f"{counted(len(in_clear), 'file')} with keys of this node lie in clear: "
    if has_seal:
        told = f"{what}the last start could not seal {', '.join(in_clear)}."
        return warn("sealed-keys", told, "`journalctl -u covey` says why. Then start it again.")
    if paths.data != SYSTEM_DATA or not service_is_installed():
        return ok("sealed-keys", f"{what}only a service of systemd is given a key to seal them.")
    if shutil.which("systemd-creds") is None:
        return ok("sealed-keys", f"{what}there is no systemd-creds; systemd 250 and newer has it.")
    told = f"{what}systemd gives the service no key to seal them with."
    hint = (
        "`sudo covey service install --now` makes one and starts the agent anew, or says why not."
    )
    return warn("sealed-keys", told, hint)


def _service_gets_seal(paths: Paths) -> bool:
    """Say whether a service has these data, and systemd a seal for it, as far as can be seen."""
    return paths.data == SYSTEM_DATA and service_is_installed() and may_be_there(SYSTEM_SEAL)


def disk(data: Path, percent_max: float) -> Finding:
    """Look whether the data directory has space, can be written, and how long that takes."""
    if not data.is_dir():
        return warn(
            "disk", f"there is no data directory {data} yet.", "`covey init` or `covey join`."
        )
    try:
        free, used = shutil.disk_usage(data).free, used_percent(data)
        took_s = _sync_time_within(data, SYNC_PATIENCE_S)
    except OSError as error:
        return _unwritable(data, error)
    if took_s is None:
        told = f"{data}: a small write has not ended after {SYNC_PATIENCE_S:.0f} s: the disk hangs."
        return fail("disk", told, "Look at the kernel's log; a card that does this is worn out.")
    told = f"{data}: {free // MIB} MiB free, {took_s * 1000:.1f} ms to write and sync."
    if free < FREE_FAIL_BYTES:
        return fail("disk", told, "Free some space: soon nothing can be saved any more.")
    if took_s > SYNC_FAIL_S:
        return fail("disk", told, "The disk is failing or overloaded: look at the kernel's log.")
    if used > percent_max and percent_max < 100.0:
        told = f"{told[:-1]}; {used:.1f} % in use, and above {percent_max:g} % puts are refused."
        return warn("disk", told, "Free some space, or raise `[storage] disk_percent_max`.")
    if free < FREE_WARN_BYTES:
        return warn("disk", told, "Free some space before it runs out.")
    if took_s > SYNC_WARN_S:
        return warn("disk", told, "A slow card: writes to shared keys wait that long each time.")
    return ok("disk", told)


def sqlite(version: str) -> Finding:
    """Name the SQLite that is here, and whether it has the fault by which logs lose pages.

    https://sqlite.org/wal.html#walresetbug: two connections that write or checkpoint one file.
    """
    told = f"SQLite {version}"
    if tuple(map(int, version.split("."))) >= WAL_RESET_MENDED:
        return ok("sqlite", f"{told}.")
    return ok(
        "sqlite",
        f"{told}: older than 3.51.3, it loses pages where two connections write one file; here "
        "one connection writes each.",
    )


def _unwritable(data: Path, error: OSError) -> Finding:
    hints = {
        errno.EROFS: "The disk is read-only: mount it for writing; a card may be worn out.",
        errno.ENOSPC: "The disk is full: free some space.",
        errno.EACCES: "Run as the user who owns the directory.",
    }
    why = error.strerror or str(error)
    hint = hints.get(error.errno or 0, "Look at the kernel's log.")
    return fail("disk", f"{data} cannot be written: {why}.", hint)


def _sync_time_within(data: Path, within_s: float) -> float | None:
    """Return how long a small write takes; None if it does not end in time. Raises OSError.

    Nothing ends a sync that hangs: the thread in it is left behind, and ends with the process.
    """
    ended: Future[float] = Future()

    def measure() -> None:
        try:
            ended.set_result(_sync_time_s(data))
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            ended.set_exception(error)

    threading.Thread(target=measure, name="doctor-sync", daemon=True).start()
    try:
        return ended.result(within_s)
    except TimeoutError:
        return None


def _sync_time_s(data: Path) -> float:
    """Return how long writing and syncing a small file takes, the median of a few."""
    probe = data / f".doctor-{secrets.token_hex(4)}"
    handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    times = []
    try:
        for _ in range(SYNCS):
            began = time.perf_counter()
            os.pwrite(handle, bytes(SYNC_BYTES), 0)
            os.fsync(handle)
            times.append(time.perf_counter() - began)
    finally:
        os.close(handle)
        probe.unlink(missing_ok=True)
    import statistics  # brings fractions and decimals along: for the doctor's visits alone

    return statistics.median(times)


def packages(distributions: Mapping[str, Sequence[str]]) -> Finding:
    """Look whether another distribution wrote into our packages: the last one installed wins."""
    strangers = {
        package: sorted({each for each in distributions.get(package, ()) if not _is_ours(each)})
        for package in OUR_PACKAGES
    }
    told = [f"{', '.join(names)} (package {name})" for name, names in strangers.items() if names]
    if told:
        return fail(
            "packages",
            f"other distributions have packages with our names: {'; '.join(told)}.",
            "Install Covey in a virtual environment of its own: pipx and uv make one.",
        )
    return ok("packages", "no other distribution has packages with our names.")


def _is_ours(distribution: str) -> bool:
    return distribution.lower() == OUR_DISTRIBUTION


def multicast(interfaces: Sequence[Interface], *, mdns: bool) -> list[Finding]:
    """Send a multicast question on each interface and look whether this device hears it.

    Bridges behind which are only containers of this device are left out, if there is anything else.
    """
    if not mdns:
        return [ok("multicast", "mDNS is switched off ([network] mdns); seeds are used alone.")]
    usable = [each for each in interfaces if each.addresses and each.carries_mdns]
    outside = [each for each in usable if not each.is_private] or usable
    if not outside:
        return [warn("multicast", "no interface has an address.", "Is the network connected?")]
    return [_multicast_on(each, host) for each in outside for host in _asked_from(each)]


def _asked_from(interface: Interface) -> Sequence[str]:
    """Return from where to ask: every IPv4 address, or IPv6 where there is no other."""
    return [host for host in interface.addresses if "." in host] or interface.addresses[:1]


def _multicast_on(interface: Interface, host: str) -> Finding:
    where = f"{interface.name} ({host.partition('%')[0]})"
    try:
        heard = _hears_itself(host, interface.number)
    except OSError as error:
        return warn(
            "multicast",
            f"multicast on {where} cannot be tried: {error.strerror or error}.",
            "Another program may hold UDP port 5353 for itself; members can be named as seeds.",
        )
    if heard:
        return ok("multicast", f"multicast passes on {where}.")
    return warn(
        "multicast",
        f"multicast blocked on {where}: our own question did not come back.",
        "Use seeds: name members under [network] seeds, or let UDP port 5353 pass the firewall.",
    )


def _hears_itself(host: str, number: int) -> bool:
    """Tell whether a question sent by multicast from this address is heard here.

    ``number`` is the index of the interface that has the address: IPv6 goes by that.
    """
    question = struct.pack(">HHHHHH", secrets.randbits(16) | 1, 0, 1, 0, 0, 0) + QUESTION
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as opened:
        listening, sending = (
            opened.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(2)
        )
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            listening.setsockopt(socket.SOL_SOCKET, option, 1)
        listening.bind(("", MDNS_PORT))
        if family == socket.AF_INET6:
            group, index = socket.inet_pton(family, MDNS_GROUP6), struct.pack("=I", number)
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + index)
            sending.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            sending.sendto(question, (MDNS_GROUP6, MDNS_PORT))
        else:
            group, local = socket.inet_aton(MDNS_GROUP), socket.inet_aton(host)
            listening.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + local)
            sending.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, local)
            sending.sendto(question, (MDNS_GROUP, MDNS_PORT))
        return _receives(listening, question, time.monotonic() + MULTICAST_WAIT_S)


def _receives(listening: socket.socket, wanted: bytes, give_up: float) -> bool:
    """Read what comes until it is the one that is wanted, or the time is over.

    What lies there by then is read all the same: on a busy machine the time is over before we look.
    """
    for _ in range(HEARD_MAX):
        listening.settimeout(max(LAST_LOOK_S, give_up - time.monotonic()))
        try:
            if listening.recv(2048) == wanted:
                return True
        except TimeoutError:
            return False
    return False
