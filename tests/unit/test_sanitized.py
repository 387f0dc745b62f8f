import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGINE = (
    "test_native.py",
    "test_native_calls.py",
    "test_native_models.py",
    "test_native_maps.py",
    "test_native_memory.py",
)
SLOW = "large_request or interpreter"  # half a minute, and nothing that a small request does not do
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g")
# What is neither written nor zeroed is NaN, and shows in answers. Python keeps freed objects in pools of its own, where
# reading them is no error, unless it is told not to.
OPTIONS = "detect_leaks=0:max_malloc_fill_size=1073741824:malloc_fill_byte=255"
SCRIPT = """
import importlib.util, sys
import pytest
name, path, *arguments = sys.argv[1:]
spec = importlib.util.spec_from_file_location(name, path)
module = sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
code = pytest.main(["-q", "-p", "no:cacheprovider", "--no-cov", *arguments])
assert importlib.import_module(name) is module
sys.exit(code)
"""


@pytest.fixture(scope="module")
def gcc() -> str:
    """The compiler, where there is one with a sanitizer."""
    found = shutil.which("gcc")
    if not found or not Path(find_library(found, "libasan.so")).is_file():
        pytest.skip("no gcc, or none with libasan")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        pytest.skip("no headers of this Python")
    return found


def find_library(gcc: str, name: str) -> str:
    """Where the compiler's own library lies; its bare name if there is none."""
    return subprocess.run([gcc, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()


def compile_sanitized(gcc: str, source: Path, folder: Path) -> Path:
    """Compile the C code so that it ends the process where it leaves its memory or the language."""
    module = folder / "sanitized.abi3.so"
    include = f"-I{sysconfig.get_path('include')}"
    subprocess.run([gcc, "-shared", "-fPIC", include, *SANITIZE, str(source), "-o", str(module)], check=True)
    return module


def run_sanitized(gcc: str, name: str, module: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tests over a module compiled for it, which stands for the one of that name."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "LD_PRELOAD": find_library(gcc, "libasan.so"),
        "ASAN_OPTIONS": OPTIONS,
        "PYTHONMALLOC": "malloc",
        "DIN_TEST_EXAMPLES": "30",
    }
    command = [sys.executable, "-c", SCRIPT, name, str(module), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


@pytest.mark.parametrize(
    ("name", "source", "tests"),
    [
        pytest.param("service.engine.native._forward", "engine/native/forward.c", ENGINE, id="engine"),
        pytest.param("service._counts", "counts.c", ("test_ledgers.py",), id="counts"),
        pytest.param("service._heads", "heads.c", ("test_heads.py",), id="heads"),
    ],
)
def test_nothing_leaves_its_memory(gcc: str, tmp_path: Path, name: str, source: str, tests: tuple[str, ...]) -> None:
    """The tests of the C code pass with every read and write checked."""
    module = compile_sanitized(gcc, ROOT / "service" / source, tmp_path)
    done = run_sanitized(gcc, name, module, *(f"tests/unit/{test}" for test in tests), "-k", f"not ({SLOW})")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout
