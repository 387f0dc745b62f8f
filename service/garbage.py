"""Python's garbage collector, at moments when nobody waits for it, and for some milliseconds only.

By itself it sets off when more objects are new than gone, which under overload is all the time: a request that waits is
some 90 objects, each looked through in up to 1 us, and none of them is garbage. Nor do requests and connections leave
any when they end. What does are routes other than `/score`, TLS, and versions.
"""

import asyncio
import gc
from collections.abc import Callable

PERIOD_S = 0.05
WORTH = 2_000  # objects, more than at the last look: one takes some 2 ms, and 10 if more came while it was busy
MOST = 500_000  # as many, and it is looked whoever waits: more than all connections' requests together


def take_over() -> None:
    """Have the collector do nothing by itself, and never look through what is here now.

    That is what TensorFlow's import left, to stay: 0.3 s each time.
    """
    gc.collect()
    gc.freeze()
    gc.disable()


async def collect_when_idle(busy: Callable[[], bool]) -> None:
    """Look through what is new whenever enough has come together and nobody is served.

    What is kept, as connections are, is not looked through again (25 to 80 ms for 2,000 of them) before very much has.
    """
    kept = 0
    while True:
        await asyncio.sleep(PERIOD_S)
        new = gc.get_count()[0]
        if new > MOST or (new > WORTH and not busy()):
            kept += new - gc.collect(0)
        if kept > MOST:
            gc.collect()
            kept = 0
