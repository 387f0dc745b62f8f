"""dinserve: online click-through-rate scoring with a Deep Interest Network."""

import time

__version__ = "0.1.0"

STARTED = time.monotonic()  # of this process, but for the 0.03 s that Python itself takes
