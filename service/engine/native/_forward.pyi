from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.batch import Floats, Ids

# kernel, bias, activation, alpha, scale, shift
Layer: TypeAlias = tuple[Floats | None, Floats, int, Floats, Floats, Floats]
Unit: TypeAlias = tuple[Floats, Floats, Floats, tuple[Layer, ...], bool]  # query, key, product, layers, softmax
Pair: TypeAlias = tuple[Floats, Floats, Unit | None, NDArray[np.int32] | None]  # table, target table, unit, rows

class Model:
    def __init__(
        self,
        pairs: tuple[Pair, ...],
        head: tuple[Layer, ...],
        bias: Floats | None,
        product: bool,
        level: str | None = None,
    ) -> None: ...
    @property
    def level(self) -> str: ...
    def run(
        self,
        requests: tuple[tuple[Ids, ...], ...],
        probability: Floats,
        attention: tuple[Floats, ...] | None = None,
    ) -> None: ...

def fingerprint(text: bytes) -> int: ...
def levels() -> list[str]: ...
