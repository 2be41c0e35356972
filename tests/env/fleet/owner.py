"""Acquires a fleet's models, says so and waits to be killed: `python -m tests.env.fleet.owner FILE MODEL...`."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from env.fleet import Fleet, load_fleet


async def main() -> None:
    async with Fleet(load_fleet(Path(sys.argv[1]))) as fleet, fleet.acquire(sys.argv[2:]) as lease:
        pids = [server.mark.pid for name in lease.urls if (server := fleet.server(name)) and server.mark]
        print(json.dumps({"pids": pids, "urls": dict(lease.urls)}), flush=True)
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(main())
