from typing import TypeAlias

from service.batch import Floats, Ids

# kernel, bias, activation, alpha, scale, shift
Layer: TypeAlias = tuple[Floats | None, Floats, int, Floats, Floats, Floats]
Unit: TypeAlias = tuple[Floats, Floats, Floats, tuple[Layer, ...], bool]  # query, key, product, layers, softmax
Pair: TypeAlias = tuple[Floats, Floats, Unit | None]  # table, target table

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
