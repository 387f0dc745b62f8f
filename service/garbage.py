"""Python's garbage collector, at moments when nobody waits for it.

By itself it sets off when more objects are new than gone, which under overload is all the time: a request that waits is
some 90 objects, each looked through in 1 us, and none of them is garbage. Requests leave nothing to be collected; what
does are connections that closed, and versions.
"""

import asyncio
import gc
from collections.abc import Callable

PERIOD_S = 1.0
WORTH = 20_000  # objects, more than at the last look: a look takes some 10 ms
MOST = 500_000  # as many, and it is looked whoever waits: more than all connections' requests together


def take_over() -> None:
    """Have the collector do nothing by itself, and never look through what is here now.

    That is what TensorFlow's import left, to stay: 0.3 s each time.
    """
    gc.collect()
    gc.freeze()
    gc.disable()


async def collect_when_idle(busy: Callable[[], bool]) -> None:
    """Collect whenever enough has come together and nobody is served."""
    while True:
        await asyncio.sleep(PERIOD_S)
        new = gc.get_count()[0]
        if new > MOST or (new > WORTH and not busy()):
            gc.collect()
