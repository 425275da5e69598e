"""Holds silent connections: ``python -m tests.live.harness.holder COUNT HOST PORT [...]``.

Those that the other side closes are opened again at once, as somebody would who means it. Any
number of pairs of host and port may follow. Goes on until it is killed.
"""

import asyncio
import contextlib
import resource
import sys

PAUSE_S = 0.02


async def _hold(host: str, port: int) -> None:
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port)
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()
        await asyncio.sleep(PAUSE_S)


async def _main(count: int, targets: list[tuple[str, int]]) -> None:
    await asyncio.gather(*(_hold(host, port) for host, port in targets for _ in range(count)))


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _count, *_where = sys.argv[1:]
    _targets = [(host, int(port)) for host, port in zip(_where[::2], _where[1::2], strict=True)]
    asyncio.run(_main(int(_count), _targets))
