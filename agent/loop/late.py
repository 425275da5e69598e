"""Loads what an agent may never need when somebody asks for it, and not on the loop's thread.

A small device takes tenths of a second to load a few modules, and the gossip must not stand still
for so long. So who is about to import something says ``await load(...)`` first.
"""

import asyncio
import gc
from importlib import import_module

from agent.exits import UNHEALTHY, AgentError

_loaded: set[str] = set()


async def load(module: str) -> None:
    """Return when a module can be imported at once.

    Raises AgentError where it cannot be read now: code takes file descriptors, too.
    """
    if module not in _loaded:
        try:
            await asyncio.to_thread(import_module, module)
        except OSError as error:
            raise AgentError(
                f"a part of the agent cannot be loaded now: {error.strerror or error}",
                "try again; if it stays so, see what holds its files, or start it again",
                UNHEALTHY,
            ) from error
        gc.freeze()  # what is loaded stays: looking through it for garbage would hold up the loop
        _loaded.add(module)
