"""One member of a kinship cluster, for bench/contenders.py: prints what it comes to believe.

kinship is a library and has no agent of its own; this is the smallest one that can be watched,
with its preset for a LAN and one shared key: ``kinship_agent.py NAME ADDRESS:PORT SEED KEY``.
"""

import asyncio
import sys

import kinship


async def main(name: str, bind: str, seed: str, key: str) -> None:
    """Take part until killed."""
    config = kinship.Config.lan(name=name, bind=bind, seeds=[seed], keys=[key], cluster="bench")
    async with kinship.Cluster(config) as cluster:
        events = cluster.events()
        for member in cluster.members():  # those met while it joined
            print("MemberJoined", member.name, flush=True)
        async for event in events:
            about = getattr(event, "member", None)
            if about is not None:
                print(type(event).__name__, about.name, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
