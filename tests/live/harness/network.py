"""A network of our own: hosts are namespaces, cables are veth pairs, the switch can be cut in two.

        h1 h2 h3         h4 h5
         │  │  │          │  │
        ═╧══╧══╧═ ───────═╧══╧═        one namespace holds both bridges and the cable between
          west     joint  east

Nothing touches the machine's own network: the bridges live in a namespace as well. Names carry
the process id, so that what a crashed test run left behind is found and removed by the next one.
Needs root and iproute2; loss also needs nftables.
"""

import atexit
import contextlib
import itertools
import os
import re
import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Literal, NamedTuple, Self

from tests.support.patience import GIVE_UP_S

Side = Literal["west", "east"]
SIDES: tuple[Side, ...] = ("west", "east")
NAMESPACES = Path("/run/netns")
NAME = re.compile(r"cv([0-9]+)-[0-9a-f]+-")
GATEWAY = "10.77.0.254"
AGENT_PORT = 7747

# Where Debian keeps what only root needs; not every root shell looks there.
os.environ["PATH"] += ":/usr/sbin:/sbin"


def run(*command: str) -> str:
    """Run a command and return its output. Raises RuntimeError with what it complained about."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=GIVE_UP_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _can_make_networks() -> bool:
    """Try it: root in a container often may not."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"cv{os.getpid()}-probe-"
    try:
        run("ip", "netns", "add", name)
        run("ip", "netns", "delete", name)
    except RuntimeError:
        return False
    return True


can_make_networks = _can_make_networks()


class Host(NamedTuple):
    """One namespace with a cable to the switch."""

    namespace: str
    port: str
    ipv4: str
    ipv6: str

    def enter(self) -> list[str]:
        """Return the words to put before a command, so that it runs on this host."""
        return ["ip", "netns", "exec", self.namespace]


class Network:
    """Namespaces on a switch; remove it with ``close`` or as a context manager."""

    def __init__(self) -> None:
        _remove_leftovers()
        self._prefix = f"cv{os.getpid()}-{secrets.token_hex(2)}-"
        self._switch = f"{self._prefix}sw"
        self.hosts: list[Host] = []
        atexit.register(self.close)
        run("ip", "netns", "add", self._switch)
        for side in SIDES:
            self._in_switch("link", "add", side, "type", "bridge")
            self._in_switch("link", "set", side, "up")
        self._in_switch("link", "add", "joint", "type", "veth", "peer", "name", "tnioj")
        for end, side in (("joint", "west"), ("tnioj", "east")):
            self._in_switch("link", "set", end, "master", side, "up")
        self._in_switch("address", "add", f"{GATEWAY}/24", "dev", "west")

    def _in_switch(self, *words: str) -> None:
        run("ip", "-n", self._switch, *words)

    def add_host(self, side: Side = "west") -> Host:
        """Plug a new host in: an IPv4, an IPv6 and a link-local address, a default route."""
        number = len(self.hosts) + 1
        host = Host(f"{self._prefix}h{number}", f"p{number}", *_addresses(number))
        run("ip", "netns", "add", host.namespace)
        self.hosts.append(host)
        run("ip", "-n", host.namespace, "link", "set", "lo", "up")
        self._connect(host, side)
        return self.lease(host, number)

    def _connect(self, host: Host, side: Side) -> None:
        self._in_switch("link", "add", host.port, "type", "veth",
                        "peer", "name", "eth0", "netns", host.namespace)  # fmt: skip
        # No duplicate address detection: it would hold back IPv6 for seconds.
        run(*host.enter(), "sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0",
            "net.ipv6.conf.eth0.accept_dad=0")  # fmt: skip
        run("ip", "-n", host.namespace, "link", "set", "eth0", "up")
        self._in_switch("link", "set", host.port, "master", side, "up")

    def replace_card(self, host: Host, side: Side = "west") -> None:
        """Take a host's network card out and put another in: same name, same addresses."""
        inside = ("ip", "-n", host.namespace)
        before = run(*inside, "-o", "address", "show", "dev", "eth0", "scope", "global").split()
        run(*inside, "link", "delete", "eth0")
        self._connect(host, side)
        for word, address in itertools.pairwise(before):
            if word in ("inet", "inet6"):
                run(*inside, "address", "add", address, "dev", "eth0")
        run(*inside, "route", "add", "default", "via", GATEWAY)

    def add_bridge(self, host: Host, name: str, address: str) -> None:
        """Give a host a bridge of its own, as Docker does, with a container behind it."""
        inside = ("ip", "-n", host.namespace)
        run(*inside, "link", "add", name, "type", "bridge")
        container = f"{host.port}{name}"
        run(*inside, "link", "add", f"v{name}", "type", "veth",
            "peer", "name", container, "netns", self._switch)  # fmt: skip
        run(*inside, "link", "set", f"v{name}", "master", name, "up")
        self._in_switch("link", "set", container, "up")
        run(*inside, "link", "set", name, "up")
        run(*inside, "address", "add", address, "dev", name)

    def lease(self, host: Host, number: int) -> Host:
        """Give a host the addresses of this number, and the route that goes with them."""
        ipv4, ipv6 = _addresses(number)
        inside = ("ip", "-n", host.namespace)
        run(*inside, "address", "add", f"{ipv4}/24", "dev", "eth0")
        run(*inside, "address", "add", f"{ipv6}/64", "dev", "eth0", "nodad")
        run(*inside, "route", "add", "default", "via", GATEWAY)
        return host._replace(ipv4=ipv4, ipv6=ipv6)

    def expire(self, host: Host) -> None:
        """Take a host's addresses away, and all routes with them; the cable stays."""
        run("ip", "-n", host.namespace, "address", "flush", "dev", "eth0", "scope", "global")

    def keep_family(self, host: Host, family: Literal["ipv4", "ipv6"]) -> None:
        """Take the other family's addresses and routes away, link-local ones as well."""
        if family == "ipv4":
            run(*host.enter(), "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1")
        else:
            run("ip", "-n", host.namespace, "-4", "address", "flush", "dev", "eth0")

    def announce_leases(self) -> None:
        """Let all hosts look each other's hardware up again, as after a gratuitous ARP."""
        for host in self.hosts:
            run("ip", "-n", host.namespace, "neighbour", "flush", "dev", "eth0")

    def cut(self) -> None:
        """Pull the cable between west and east."""
        self._in_switch("link", "set", "joint", "down")

    def mend(self) -> None:
        """Plug the cable between west and east in again."""
        self._in_switch("link", "set", "joint", "up")

    def mend_all(self) -> None:
        """Undo all that a test did to cables and packets; addresses stay as they are."""
        self.mend()
        self.pass_all()
        for host in self.hosts:
            self.plug_in(host)
            with contextlib.suppress(RuntimeError):
                self.open_firewall(host)

    def unplug(self, host: Host) -> None:
        """Pull the cable of one host: it is gone, and nobody answers for it."""
        self._in_switch("link", "set", host.port, "down")

    def plug_in(self, host: Host) -> None:
        """Put the cable of that host back."""
        self._in_switch("link", "set", host.port, "up")

    def lose(self, percent: int) -> None:
        """Drop this share of the frames that pass the switch; 0 for none."""
        self.pass_all()
        if percent:
            self.drop(percent=percent)

    def drop(
        self,
        source: Host | None = None,
        target: Host | None = None,
        *,
        percent: int = 100,
        what: Literal["frames", "datagrams", "streams"] = "frames",
    ) -> None:
        """From now on, drop this share of what goes from one host to another; None: any host."""
        words = [f"iifname {source.port}"] if source else []
        words += [f"oifname {target.port}"] if target else []
        words += ["meta l4proto udp"] if what == "datagrams" else []
        words += [f"tcp dport {AGENT_PORT}"] if what == "streams" else []
        words += [f"numgen random mod 100 < {percent}"] if percent < 100 else []
        self._drop(*words)

    def narrow(self, path_bytes: int, target: Host | None = None) -> None:
        """From now on, drop packets larger than this, on their way to one host; None: any.

        That is what a tunnel does whose words about it (ICMP) are lost.
        """
        for host in self.hosts:
            # Else what is dropped are not packets, but dozens of them that hosts pass on as one.
            run("ip", "-n", host.namespace, "link", "set", "dev", "eth0", "gso_max_segs", "1")
        words = [f"oifname {target.port}"] if target else []
        self._drop(*words, "meta", "length", ">", str(path_bytes))

    def _drop(self, *words: str) -> None:
        self._nft("add", "table", "bridge", "losses")
        self._nft("add", "chain", "bridge", "losses", "forward",
                  "{ type filter hook forward priority 0; }")  # fmt: skip
        self._nft("add", "rule", "bridge", "losses", "forward", *words, "drop")

    def pass_all(self) -> None:
        """Drop nothing any more."""
        with contextlib.suppress(RuntimeError):
            self._nft("delete", "table", "bridge", "losses")

    def reject_datagrams(self, host: Host) -> None:
        """Let a firewall on a host answer every datagram for an agent with a refusal."""
        nft = (*host.enter(), "nft")
        run(*nft, "add", "table", "inet", "firewall")
        run(*nft, "add", "chain", "inet", "firewall", "input",
            "{ type filter hook input priority 0; }")  # fmt: skip
        run(*nft, "add", "rule", "inet", "firewall", "input", f"udp dport {AGENT_PORT} reject")

    def open_firewall(self, host: Host) -> None:
        """Undo ``reject_datagrams``."""
        run(*host.enter(), "nft", "delete", "table", "inet", "firewall")

    def _nft(self, *words: str) -> None:
        run("ip", "netns", "exec", self._switch, "nft", *words)

    def close(self) -> None:
        """End whatever still runs on the hosts, and remove them all. May be called twice."""
        atexit.unregister(self.close)
        for namespace in [host.namespace for host in self.hosts] + [self._switch]:
            _remove(namespace)
        self.hosts.clear()

    def __enter__(self) -> Self:
        """Return the network itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the network."""
        self.close()


def _addresses(number: int) -> tuple[str, str]:
    return f"10.77.0.{number}", f"fd77::{number:x}"


def _remove(namespace: str) -> None:
    """Kill what lives in one of our namespaces, and delete it; another run may do so meanwhile."""
    with contextlib.suppress(RuntimeError):
        for process in run("ip", "netns", "pids", namespace).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        run("ip", "netns", "delete", namespace)


def _remove_leftovers() -> None:
    """Remove the networks of test runs that are no more."""
    if not NAMESPACES.exists():
        return
    for path in NAMESPACES.iterdir():
        found = NAME.match(path.name)
        if found and not Path(f"/proc/{found.group(1)}").exists():
            _remove(path.name)
