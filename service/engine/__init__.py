"""What turns a batch into probabilities. This package's modules are the only serving code that imports TensorFlow."""

from collections.abc import Sequence
from typing import Protocol

from service.batch import Batch, Floats, Sample


class Engine(Protocol):
    """One loaded version; `pack`, `run` and `explain` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """What metrics and /health call it."""

    @property
    def explains(self) -> bool:
        """Whether `explain` works."""

    def pack(self, samples: Sequence[Sample]) -> Batch:
        """Lay out samples as this engine takes them."""

    def run(self, batch: Batch) -> Floats:
        """Probabilities (K, B) in [0, 1]; what stands at padding is meaningless."""

    def explain(self, batch: Batch) -> tuple[Floats, Floats, Floats]:
        """Probabilities (K, B), attention weights to ids (K, B, T) and to tags (K, B, U)."""

    def warm(self) -> None:
        """Run once whatever compiles on first use, so that no request waits for it."""

    def close(self) -> None:
        """Free what the version holds; no call may follow."""
