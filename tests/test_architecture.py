"""The import rules of the package: data goes one way, and each module is ignorant of what is none of its business."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "service"

HTTP = frozenset({"fastapi", "starlette", "uvicorn", "httpx", "http"})
TENSORFLOW = frozenset({"tensorflow", "keras"})
SERVER = frozenset(
    {"batcher", "registry", "metrics", "scorer", "schema", "middleware", "app", "client", "cli", "__main__"}
)

# From the bottom of the package to its top: a module imports only those above it in this table, and never a name on its
# own line. Bare names are this package's modules or outside packages alike, for no outside package shares a name.
MUST_NOT_IMPORT: dict[str, frozenset[str]] = {
    "errors": HTTP,
    "config": HTTP,
    "batch": HTTP | {"time", "asyncio", "concurrent", "threading", "config"},
    "artifact": HTTP | {"config"},
    "batcher": HTTP | {"artifact", "batch", "config", "numpy", "pydantic", "prometheus_client"},
    "engine": HTTP | {"batcher", "prometheus_client", "asyncio"},
    "registry": HTTP | {"batcher", "engine.", "prometheus_client"},
    "metrics": HTTP | {"config", "batch", "artifact", "batcher", "engine", "registry"},
    "scorer": HTTP | {"pydantic"},
    "schema": frozenset({"batcher", "engine", "registry", "scorer", "asyncio"}),
    "middleware": frozenset({"fastapi", "batch", "artifact", "batcher", "engine", "registry", "scorer", "schema"}),
    "app": frozenset({"numpy", "batch", "engine."}),
    "client": frozenset({"fastapi", "starlette", "uvicorn", "batcher", "engine", "registry", "scorer", "app"}),
    "training": HTTP | SERVER,
    "cli": frozenset(),
    "__main__": frozenset(),
}
ORDER = list(MUST_NOT_IMPORT)
IMPORTS_TENSORFLOW = {"engine", "training"}


def imported_by(path: Path, package: Path) -> Iterator[str]:
    """Yield what a file imports, anywhere in it: `numpy.typing`, or for this package's own `batch`, `engine.tf`."""
    parents = (package.name, *path.relative_to(package).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*parents[: len(parents) - node.level + 1]] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{source}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name.removeprefix(f"{package.name}.")


def broken_rules(package: Path) -> list[str]:
    """Name every import that the table forbids, and every module that it does not know, as `file: reason`."""
    broken = []
    for path in sorted(package.rglob("*.py")):
        file = path.relative_to(package)
        module = file.parts[0].removesuffix(".py")
        if module == "__init__":
            continue
        if module not in ORDER:
            broken.append(f"{file}: not in the table")
            continue
        for name in imported_by(path, package):
            root = name.partition(".")[0]
            if root in TENSORFLOW and module not in IMPORTS_TENSORFLOW:
                broken.append(f"{file}: imports {name}")
            elif root in MUST_NOT_IMPORT[module] or (f"{root}." in MUST_NOT_IMPORT[module] and name != root):
                broken.append(f"{file}: must not know {name}")
            elif root in ORDER and ORDER.index(root) > ORDER.index(module):
                broken.append(f"{file}: imports {name}, which stands below it")
    return broken


def test_package_keeps_its_import_order() -> None:
    """Every module of the package imports only what the table allows."""
    assert broken_rules(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "code", "reason"),
    [
        pytest.param("batch.py", "import service.scorer", "imports scorer, which stands below it", id="below"),
        pytest.param("batch.py", "from service import app", "imports app, which stands below it", id="from-package"),
        pytest.param("batch.py", "from .app import main", "imports app.main, which stands below it", id="relative"),
        pytest.param("engine/tf.py", "from ..app import x", "imports app.x, which stands below it", id="two-levels"),
        pytest.param("batcher.py", "import numpy.typing", "must not know numpy.typing", id="outside-package"),
        pytest.param("training/train.py", "from service.app import x", "must not know app.x", id="training-server"),
        pytest.param("cli.py", "def main():\n import tensorflow", "imports tensorflow", id="late-tensorflow"),
        pytest.param("helpers.py", "", "not in the table", id="unknown-module"),
    ],
)
def test_forbidden_import_is_found(tmp_path: Path, file: str, code: str, reason: str) -> None:
    """An import against the table is reported with the file and the reason, wherever and however it is written."""
    path = tmp_path / "service" / file
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert broken_rules(tmp_path / "service") == [f"{file}: {reason}"]


def test_server_and_command_line_start_without_tensorflow() -> None:
    """Importing any module but the engines and the training leaves TensorFlow unloaded."""
    modules = [name for name in ORDER if (PACKAGE / f"{name}.py").exists() and name != "__main__"]
    code = f"""
import importlib, sys
for name in {modules}:
    importlib.import_module(f"service.{{name}}")
    assert not {set(TENSORFLOW)} & set(sys.modules), name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
