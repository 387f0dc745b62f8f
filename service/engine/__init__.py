"""What turns a batch into probabilities. This package's modules are the only serving code that imports TensorFlow."""

from collections.abc import Sequence
from typing import Any, Protocol

from service.batch import Batch, Floats, Sample


class Engine(Protocol):
    """One loaded version; `pack`, `run` and `explain` may be called from several threads at once."""

    @property
    def name(self) -> str:
        """What metrics and /health call it."""

    @property
    def fallback_reason(self) -> str | None:
        """Why this engine serves and not the one that was preferred; None: it is the one."""

    @property
    def explains(self) -> bool:
        """Whether `explain` works."""

    def pack(self, samples: Sequence[Sample]) -> Batch:
        """Lay out samples as this engine takes them."""

    def run(self, batch: Any) -> Floats:
        """Probabilities in [0, 1] of what `pack` made, laid out as its `split` takes them."""

    def explain(self, batch: Any) -> tuple[Floats, Floats, Floats]:
        """Probabilities and, with one axis more (T and U), attention weights to ids and to tags."""

    def warm(self) -> None:
        """Run once whatever compiles on first use, so that no request waits for it."""

    def compilations(self) -> int:
        """Programs this process has compiled since it was last asked. Asked after every batch, so it must be cheap."""

    def close(self) -> None:
        """Free what the version holds; no call may follow."""
