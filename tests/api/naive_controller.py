"""A controller as one writes it in an afternoon: it works, and breaks every rule that `tandem conform` knows."""

from __future__ import annotations

import asyncio
import signal

from tandem.runtime import connect_client
from tandem.runtime.errors import ApiError
from tandem.runtime.resources import CONFIG_MAPS, LEASES


async def main() -> None:
    """Takes a Lease once and never looks at it again; writes each object whenever it starts; hears no signal."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    async with connect_client() as client:
        lease = {"metadata": {"name": "naive", "namespace": "default"},
                 "spec": {"holderIdentity": "naive", "leaseDurationSeconds": 3}}  # fmt: skip
        try:
            await client.create(LEASES, lease, seconds=10)
        except ApiError:
            found = await client.get(LEASES, "naive", namespace="default", seconds=10)
            await client.replace(LEASES, {**found, "spec": lease["spec"]}, seconds=10)
        done: set[str] = set()
        while True:
            for item in (await client.list(CONFIG_MAPS, namespace="default", label_selector="n=n", seconds=60))[
                "items"
            ]:
                name = item["metadata"]["name"]
                if name not in done:
                    done.add(name)
                    await client.replace(CONFIG_MAPS, {**item, "data": {"done": "yes"}}, seconds=60)
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main())
