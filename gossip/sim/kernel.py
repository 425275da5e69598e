"""What kernels do for processes that are no more: they close streams, and refuse datagrams.

A process that dies is given away by its kernel, as long as there is one. Whoever kept a stream open
to the process hears that it ends; and whoever sends it a datagram gets an ICMP "port unreachable",
though not for each: Linux counts how many it sends. A device that vanished says nothing.
"""

import random
from collections import Counter
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from gossip.core.ids import NodeId
from gossip.core.machine import Address, Instant
from gossip.sim.network import Network
from gossip.sim.schedule import Schedule

# Linux refuses so many datagrams of one sender at once, then one a second (icmp_ratelimit).
REFUSALS_AT_ONCE, REFUSALS_PER_S = 6, 1.0


class Device(Protocol):
    """What streams and kernels need to know of a device and of the process on it."""

    @property
    def name(self) -> str:
        """What it is called on the network."""

    @property
    def id(self) -> NodeId:
        """Which node it is."""

    @property
    def life(self) -> int:
        """The number of its process; what is under way for one life is void in the next."""

    @property
    def is_down(self) -> bool:
        """Whether there is no process."""

    @property
    def has_vanished(self) -> bool:
        """Whether there is no kernel either."""

    @property
    def is_full(self) -> bool:
        """Whether its socket buffers hold no more."""


D = TypeVar("D", bound=Device)
D_contra = TypeVar("D_contra", bound=Device, contravariant=True)


class KernelListener(Protocol[D_contra]):
    """Who passes on what kernels say."""

    def stream_closed(self, device: D_contra, ended: D_contra) -> None:
        """Tell the process on a device that its stream to another has ended."""

    def port_refused(self, device: D_contra, address: Address) -> None:
        """Tell the process on a device that nobody receives datagrams at this address."""


class Kernel(Generic[D]):
    """What the kernels of all devices do for processes that are no more."""

    def __init__(
        self,
        schedule: Schedule,
        network: Network,
        rng: random.Random,
        counts: Counter[str],
        informed: KernelListener[D],
    ) -> None:
        self.watched: dict[str, tuple[NodeId, ...]] = {}
        """To whom each process, by the name of its device, keeps a stream open."""
        self._schedule, self._network, self._rng = schedule, network, rng
        self._counts = counts
        self._informed = informed
        self._refusal_buckets: dict[tuple[str, str], tuple[float, Instant]] = {}

    def process_ended(self, ended: D, devices: Iterable[D]) -> None:
        """Close the streams of a process that is no more, if there is a kernel to do so."""
        self.watched.pop(ended.name, None)
        if ended.has_vanished:
            return
        for device in devices:
            watches = ended.id in self.watched.get(device.name, ())
            if watches and self._network.connected(device.name, ended.name):
                delay_s = self._network.conditions.delay_s * (1 + self._rng.random())
                self._schedule.after(delay_s, self._closes, device, device.life, ended)

    def refuse(self, refuser: D, address: Address, sender: D | None) -> None:
        """Answer a datagram to a port that no process has, as often as a kernel does."""
        if sender is None or refuser.has_vanished:
            return
        now, link = self._schedule.now, (refuser.name, sender.name)
        left, since = self._refusal_buckets.get(link, (REFUSALS_AT_ONCE, now))
        left = min(REFUSALS_AT_ONCE, left + (now - since) * REFUSALS_PER_S)
        if left < 1:
            return
        self._refusal_buckets[link] = left - 1, now
        self._counts["datagrams/refused"] += 1
        for delay_s in self._network.datagram_delays(*link, now):
            self._schedule.after(delay_s, self._refusal_arrives, sender, sender.life, address)

    def _closes(self, device: D, life: int, ended: D) -> None:
        if device.life == life:
            self._counts["streams/closed"] += 1
            self._informed.stream_closed(device, ended)

    def _refusal_arrives(self, device: D, life: int, address: Address) -> None:
        if device.life == life:
            self._informed.port_refused(device, address)
