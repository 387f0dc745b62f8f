"""What an operator has decided about versions: the pin, the canary, the shadow; and the file that keeps it."""

import contextlib
import logging
import os
import tempfile
import zlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

BUCKETS = 10_000  # a share is exact to a hundredth of a percent

logger = logging.getLogger(__name__)


class Share(BaseModel):
    """A version, and the percentage of requests that it gets."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: str = Field(pattern=r"^[1-9][0-9]{0,17}$", description="number of the version's folder")
    percent: float = Field(gt=0, le=100, allow_inf_nan=False, description="share of the requests, in percent")

    def takes(self, request_id: str, salt: str = "") -> bool:
        """Whether a request belongs to the share: always the same for the same id, and for a larger share too.

        Shares with different salts are independent of each other.
        """
        return zlib.crc32(f"{salt}{request_id}".encode()) % BUCKETS < self.percent * BUCKETS / 100


class Rollout(BaseModel):
    """Everything decided; nothing: the newest version serves every request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pin: str | None = Field(None, pattern=r"^[1-9][0-9]{0,17}$")
    canary: Share | None = None
    shadow: Share | None = None


class RolloutFile:
    """Keeps a `Rollout` over restarts.

    Args:
        path: written whole, by renaming; its folder may be read-only, and then nothing is kept.
        shared: where several workers of one port tell each other, in a folder they can write; None: one process.
    """

    def __init__(self, path: Path, shared: Path | None = None) -> None:
        self._path = path
        self._shared = shared
        self._seen: int | None = None  # when the shared file was last written, in ns

    def read(self) -> tuple[Rollout, str | None]:
        """What was decided, and what is wrong with the file, in which case nothing was."""
        path = self._shared if self._shared is not None and self._shared.exists() else self._path
        try:
            return Rollout.model_validate_json(path.read_bytes()), None
        except FileNotFoundError:
            return Rollout(), None
        except OSError as error:
            return Rollout(), f"{path}: cannot be read: {error.strerror}"
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return Rollout(), f"{path}: {'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}"

    def changed(self) -> Rollout | None:
        """What another worker has decided since it was last asked, if one has."""
        if self._shared is None or not self._shared.exists():
            return None
        written = self._shared.stat().st_mtime_ns
        if written == self._seen:
            return None
        self._seen = written
        return self.read()[0]

    def write(self, rollout: Rollout) -> str | None:
        """Keep it; returns why it will be forgotten at a restart, if it will."""
        content = rollout.model_dump_json(indent=1) + "\n"
        for path in (self._shared, self._path):
            try:
                if path is not None:
                    _replace(path, content)
            except OSError as error:
                problem = f"{path}: cannot be written: {error.strerror}"
                logger.warning("what was decided is not kept: %s", problem)
                return problem
        return None


def _replace(path: Path, content: str) -> None:
    """Write a file so that a reader sees the old or the new, and a crash leaves one of them."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
