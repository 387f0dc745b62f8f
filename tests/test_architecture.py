"""The import rules of the package: data goes one way, and each module is ignorant of what is none of its business."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "service"

HTTP = frozenset({"fastapi", "starlette", "uvicorn", "httpx2", "http"})
TENSORFLOW = frozenset({"tensorflow", "keras"})
SERVER = frozenset(
    {
        "tokens",
        "tls",
        "release",
        "expiry",
        "admission",
        "executors",
        "batcher",
        "trial",
        "rollout",
        "loading",
        "registry",
        "garbage",
        "spec",
        "model_specs",
        "specs",
        "ledgers",
        "collectors",
        "metrics",
        "processes",
        "novelty",
        "scorer",
        "logs",
        "notes",
        "schema",
        "connection",
        "middleware",
        "refusals",
        "playground",
        "sockets",
        "guard",
        "protocol",
        "heads",
        "shedding",
        "server",
        "workers",
        "shadow",
        "life",
        "admin",
        "tracing",
        "watch",
        "scoring",
        "pages",
        "app",
        "client",
        "remote",
        "commands",
        "operate",
        "cli",
        "explain",
        "catalog",
        "catalog_file",
        "items",
        "__main__",
    }
)

# From the bottom of the package to its top: a module imports only those above it in this table, and never a name on its
# own line. Names are this package's modules or outside packages alike, for no outside package shares a name; `engine.`
# is what lies inside the folder, the Engine protocol excepted.
MUST_NOT_IMPORT: dict[str, frozenset[str]] = {
    "errors": HTTP,
    "inputs": HTTP | {"asyncio", "numpy", "polars", "config"},
    "client": (HTTP - {"httpx2"}) | {"numpy", "prometheus_client"},
    "config": HTTP,
    "tokens": HTTP | {"asyncio"},
    "tls": HTTP | {"asyncio"},
    "batch": HTTP | {"time", "asyncio", "concurrent", "threading", "config"},
    "drift": HTTP | {"time", "asyncio", "threading", "config", "batch", "prometheus_client"},
    "evaluation": HTTP | {"time", "asyncio", "threading", "config", "numpy", "batch", "prometheus_client"},
    "seen": HTTP | {"time", "asyncio", "threading", "config", "prometheus_client"},
    "explain": HTTP | {"time", "asyncio", "threading", "config", "pydantic"},
    "artifact": HTTP | {"config"},
    "catalog": HTTP | {"asyncio", "batch", "numpy", "pydantic", "prometheus_client", "config"},
    "catalog_file": HTTP | {"asyncio", "batch", "numpy", "pydantic", "prometheus_client"},
    "release": HTTP | {"time", "threading", "artifact", "batch", "config", "numpy"},
    "expiry": HTTP | {"threading", "artifact", "batch", "config", "numpy"},
    "admission": HTTP | {"time", "asyncio", "threading", "artifact", "batch", "config", "numpy"},
    "executors": HTTP | {"admission", "expiry", "artifact", "batch", "config", "numpy"},
    "batcher": HTTP | {"artifact", "batch", "config", "numpy", "pydantic", "prometheus_client"},
    "trial": HTTP | {"asyncio", "batch", "artifact", "batcher", "numpy"},
    "engine": HTTP | {"batcher", "prometheus_client", "asyncio"},
    "rollout": HTTP | {"batch", "artifact", "batcher", "engine"},
    "loading": HTTP | {"batcher", "engine.", "prometheus_client", "asyncio"},
    "registry": HTTP | {"batcher", "engine.", "prometheus_client"},
    "garbage": HTTP | {"batch", "artifact", "batcher", "engine", "registry", "config"},
    "spec": HTTP | {"prometheus_client"},
    "model_specs": HTTP | {"prometheus_client"},
    "specs": HTTP | {"prometheus_client"},
    "ledgers": HTTP | {"config", "batch", "artifact", "batcher", "engine", "registry", "prometheus_client"},
    "collectors": HTTP | {"config", "batch", "artifact", "batcher", "engine", "registry"},
    "metrics": HTTP | {"config", "batch", "artifact", "batcher", "engine", "registry"},
    "processes": HTTP | {"config", "batch", "artifact", "batcher", "engine", "registry", "metrics"},
    "novelty": HTTP | {"pydantic", "prometheus_client", "registry", "metrics"},
    "scorer": HTTP | {"pydantic"},
    "logs": HTTP | {"config", "batch", "artifact", "batcher", "engine", "registry", "scorer"},
    "notes": HTTP | {"pydantic", "batcher", "engine", "registry", "opentelemetry"},
    "schema": frozenset({"batcher", "engine", "registry", "scorer", "asyncio"}),
    "connection": frozenset(
        {"fastapi", "batch", "artifact", "batcher", "engine", "registry", "metrics", "scorer", "schema"}
    ),
    "middleware": frozenset({"fastapi", "batch", "artifact", "batcher", "engine", "registry", "scorer", "schema"}),
    "refusals": frozenset({"batch", "artifact", "batcher", "engine", "registry", "scorer", "metrics"}),
    "playground": frozenset(
        {"fastapi", "batch", "artifact", "batcher", "engine", "registry", "scorer", "metrics", "schema"}
    ),
    "sockets": HTTP | {"asyncio", "config"},
    "guard": frozenset(
        {"fastapi", "starlette", "batch", "artifact", "batcher", "engine", "registry", "scorer", "schema"}
    ),
    "protocol": frozenset(
        {"fastapi", "starlette", "batch", "artifact", "batcher", "engine", "registry", "scorer", "schema"}
    ),
    "heads": HTTP | {"asyncio", "config", "batch", "artifact", "batcher", "engine", "registry", "scorer", "metrics"},
    "shedding": frozenset({"fastapi", "starlette", "batch", "artifact", "batcher", "engine", "registry"}),
    "server": frozenset(
        {"fastapi", "starlette", "batch", "artifact", "batcher", "engine", "registry", "scorer", "schema"}
    ),
    "workers": frozenset({"fastapi", "batch", "artifact", "batcher", "engine", "registry", "scorer", "schema"}),
    "shadow": HTTP | {"pydantic", "prometheus_client", "registry", "scorer"},
    "life": HTTP | {"batch", "batcher", "engine.", "schema"},
    "items": frozenset({"numpy", "artifact", "batch", "batcher", "engine", "registry", "scorer", "metrics"}),
    "admin": frozenset({"numpy", "batch", "batcher", "engine", "scorer", "metrics"}),
    "tracing": HTTP | {"numpy", "batch", "batcher", "engine", "registry", "metrics"},
    "watch": frozenset({"fastapi", "numpy", "batch", "batcher", "engine", "registry", "metrics", "opentelemetry"}),
    "scoring": frozenset({"numpy", "batch", "batcher", "engine", "opentelemetry"}),
    "pages": frozenset({"numpy", "batch", "batcher", "engine", "scorer", "opentelemetry"}),
    "app": frozenset({"numpy", "batch", "engine.", "opentelemetry"}),
    "training": HTTP | SERVER,
    "remote": frozenset({"fastapi", "starlette", "uvicorn", "httpx2", "app", "registry", "scorer", "engine"}),
    "commands": frozenset({"fastapi", "starlette", "uvicorn", "numpy", "app", "registry", "scorer", "engine"}),
    "operate": HTTP | {"app", "registry", "scorer", "engine"},
    "cli": frozenset(),
    "__main__": frozenset(),
}
ORDER = list(MUST_NOT_IMPORT)
IMPORTS_TENSORFLOW = {"engine", "training"}


def imported_by(path: Path, package: Path) -> Iterator[str]:
    """Yield the modules a file imports, anywhere in it: `numpy.typing`, or of this package `batch`, `engine.tf`."""
    parents = (package.name, *path.relative_to(package).parts[:-1])
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else ()
            source = ".".join([*base, *([node.module] if node.module else [])])
            members = [f"{source}.{alias.name}" for alias in node.names]
            names += [name if source == package.name or is_module(name, package) else source for name in members]
    for name in names:
        yield name.removeprefix(f"{package.name}.")


def is_module(name: str, package: Path) -> bool:
    """Tell a module of the package from a name inside one."""
    path = package.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


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
        pytest.param("batch.py", "from .app import main", "imports app, which stands below it", id="relative"),
        pytest.param("engine/tf.py", "from ..app import x", "imports app, which stands below it", id="two-levels"),
        pytest.param("batcher.py", "import numpy.typing", "must not know numpy.typing", id="outside-package"),
        pytest.param("training/train.py", "from service.app import x", "must not know app", id="training-server"),
        pytest.param("registry.py", "import service.engine.tf", "must not know engine.tf", id="particular-engine"),
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


def test_protocol_is_no_particular_engine(tmp_path: Path) -> None:
    """The registry may name the Engine protocol that its loader returns."""
    (tmp_path / "registry.py").write_text(f"from {tmp_path.name}.engine import Engine")
    assert broken_rules(tmp_path) == []


def test_server_and_command_line_start_without_tensorflow() -> None:
    """Importing any module but a particular engine or the training leaves TensorFlow unloaded."""
    found = {path.stem for path in PACKAGE.iterdir()}
    modules = [name for name in ORDER if name in found - {"training", "__main__"}]
    code = f"""
import importlib, sys
for name in {modules}:
    importlib.import_module(f"service.{{name}}")
    assert not {set(TENSORFLOW)} & set(sys.modules), name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
