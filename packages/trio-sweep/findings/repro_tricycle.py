"""tricycle 0.4.1: services go on behind a shield without a deadline, by design."""

import tricycle
import trio

from trio_sweep import sweep


async def service():
    async with tricycle.open_service_nursery() as nursery:
        nursery.start_soon(trio.sleep, 2)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()


print(sweep(service, seeds=1))
