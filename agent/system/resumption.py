"""Notices that this process goes on from a copy of itself: a snapshot that was restored.

Whoever restores one twice has two nodes with one life: one boot, one count of datagrams, one place
in the logs of others. So a process that was restored takes a new life: the agent begins anew, as
after a restart. Three signs, looked at once a second:

* The kernel is another one (``boot_id``): the process was moved to another machine.
* The process began later than it did: CRIU restored it, and the kernel made it anew.
* The wall clock of a virtual machine jumped ahead: it slept in a snapshot, and somebody has set its
  clock since. On real devices that is NTP at work, and no sign of anything.

A virtual machine whose clock nobody sets is not noticed, and the others only a moment later. Until
then the salt of each datagram's nonce differs (``gossip/core/envelope.py``).
"""

from collections.abc import Callable
from pathlib import Path

from agent.loop.periodic import until_next
from agent.system.wall_clock import LOOK_S, ClockStep, boot_time
from gossip.core.machine import Instant

KERNEL = Path("/proc/sys/kernel/random/boot_id")
PROCESS = Path("/proc/self/stat")
BEGAN_AT = 19
"""Which field behind the name says when the process began (proc(5): starttime, field 22)."""
CPUS, HYPERVISOR = Path("/proc/cpuinfo"), Path("/sys/hypervisor/type")
JUMP_S = 5.0
SETTLED_S = 2 * LOOK_S
"""A clock that was set just before the agent took part may be noticed just after."""


def kernel() -> str:
    """Return which run of which kernel this is; empty where that is not told."""
    return _text(KERNEL)


def began() -> str:
    """Return when this process began, in its kernel's ticks."""
    fields = _text(PROCESS).rpartition(")")[2].split()
    return fields[BEGAN_AT] if len(fields) > BEGAN_AT else ""


def is_virtual() -> bool:
    """Say whether this machine is one that can be kept in a snapshot, as far as it shows."""
    flags = [line for line in _text(CPUS).splitlines() if line.startswith("flags")]
    return HYPERVISOR.exists() or (bool(flags) and "hypervisor" in flags[0].split())


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # also for want of a file descriptor
        return ""


class Resumption:
    """Notices that this process goes on from a copy of itself, by what it was like at its start."""

    def __init__(
        self,
        last_step: Callable[[], ClockStep | None],
        *,
        kernel: Callable[[], str] = kernel,
        began: Callable[[], str] = began,
        virtual: bool | None = None,
        steady: Callable[[], Instant] = boot_time,
    ) -> None:
        """``last_step`` says when the wall clock was set last; before now does not count."""
        self._last_step, self._kernel, self._began = last_step, kernel, began
        self._first = kernel(), began()
        self._jumps_from = steady() + SETTLED_S
        self._virtual = is_virtual() if virtual is None else virtual

    async def noticed(self) -> str:
        """Return, when it has happened, by what it was noticed."""
        while not (sign := self.sign()):
            await until_next(LOOK_S)
        return sign

    def sign(self) -> str:
        """Say by what it shows that the process was restored; empty if it was not."""
        names = "it runs under another kernel", "the process was made anew"
        for now, first, name in zip(self._now(), self._first, names, strict=True):
            if now and first and now != first:
                return name
        step = self._last_step()
        if step is not None and self._is_jump(step):
            return f"the clock of this virtual machine jumped ahead by {step.by_s:.0f} s"
        return ""

    def _is_jump(self, step: ClockStep) -> bool:
        return self._virtual and step.by_s >= JUMP_S and step.at >= self._jumps_from

    def _now(self) -> tuple[str, str]:
        return self._kernel(), self._began()
