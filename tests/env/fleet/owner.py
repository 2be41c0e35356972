"""Acquires a fleet's models, says so and waits to be killed: `python -m tests.env.fleet.owner FILE MODEL...`.

With FORKS set it forks a child that inherits its files, the servers' lifelines and the fleet's lock among them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from env.fleet import Fleet, load_fleet


def fork() -> int:
    child = os.fork()
    if child == 0:
        time.sleep(600)
    return child


async def main() -> None:
    async with Fleet(load_fleet(Path(sys.argv[1]))) as fleet, fleet.acquire(sys.argv[2:]) as lease:
        pids = [server.mark.pid for name in lease.urls if (server := fleet.server(name)) and server.mark]
        child = fork() if "FORKS" in os.environ else None
        print(json.dumps({"pids": pids, "child": child}), flush=True)
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main())
