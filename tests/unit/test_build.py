"""How the C code is built: project file, Makefile, containers and the code agree, and compilers are content."""

import re
import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path
from typing import Any

import pytest

from service import heads, ledgers
from service.engine import native

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTENSIONS = PROJECT["tool"]["setuptools"]["ext-modules"]
BUILT = [each["name"].replace(".", "/") + ".abi3.so" for each in EXTENSIONS]
SOURCES = {source for each in EXTENSIONS for source in each["sources"]}
HEADERS = Path(sysconfig.get_path("include"), "Python.h")


def test_install_goes_on_without_a_compiler() -> None:
    """The extensions are optional, and nothing but setuptools is needed to build them."""
    assert all(each["optional"] for each in EXTENSIONS)
    assert [re.split(r"\W", each)[0] for each in PROJECT["build-system"]["requires"]] == ["setuptools"]


def test_one_build_serves_every_supported_python() -> None:
    """The C code, the extensions and the wheel's tag keep to the stable ABI of the oldest Python supported."""
    [oldest] = re.findall(r"^>=3\.(\d+)", PROJECT["project"]["requires-python"])
    assert all(each["py-limited-api"] for each in EXTENSIONS)
    for source in SOURCES:
        [limit] = re.findall(r"#define Py_LIMITED_API 0x03(\w\w)0000", (ROOT / source).read_text())
        assert int(limit, 16) == int(oldest)
    assert PROJECT["tool"]["distutils"]["bdist_wheel"]["py-limited-api"] == f"cp3{oldest}"


@pytest.mark.parametrize(("name", "file"), list(zip([each["name"] for each in EXTENSIONS], BUILT, strict=True)))
def test_built_extension_keeps_to_the_stable_abi(name: str, file: str) -> None:
    """What is imported is the file that every Python can load."""
    module = pytest.importorskip(name, reason="the C code is not built")
    assert Path(module.__file__).name == Path(file).name


def test_extension_is_built_where_it_can_be() -> None:
    """Where there are a compiler and Python's headers, the C code was compiled when this was installed."""
    built = native.PROBLEM is None and ledgers.BUILT and heads.BUILT
    assert built or not any(map(shutil.which, ("cc", "gcc", "clang"))) or not HEADERS.exists()


def test_change_of_the_c_code_rebuilds_it() -> None:
    """Every source of an extension is a prerequisite of make's environments, and what is built is cleaned up."""
    text = (ROOT / "Makefile").read_text()
    [prerequisites] = re.findall(r"^\.venv/\.ready-%: (.*)", text, re.MULTILINE)
    assert {"pyproject.toml", *SOURCES} <= set(prerequisites.split())
    assert f"NATIVE := {' '.join(BUILT)}\n" in text
    assert re.search(r"^clean:.*\n\trm .*\$\(NATIVE\)", text, re.MULTILINE)


def test_image_has_the_native_engine_and_no_compiler() -> None:
    """The stage that installs a compiler fails without an extension; the last one only makes a folder to write to."""
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    [compiling] = [stage for stage in stages if "apt-get" in stage]
    assert re.match(r"\$\{BASE_IMAGE\} AS package\n", compiling)
    for file in BUILT:
        assert re.search(rf"^RUN [^#]*&& ls /opt/dinserve/[^&]*/{re.escape(file)}(?!\S)", compiling, re.MULTILINE)
    assert re.match(r"\$\{BASE_IMAGE\}\n", stages[-1])
    makes_folder = "RUN install --directory --owner=10001 --group=10001 --mode=0750 /state"
    assert re.findall(r"^(?:RUN|ADD) .*", stages[-1], re.MULTILINE) == [makes_folder]


@pytest.mark.parametrize("extension", EXTENSIONS, ids=lambda each: each["name"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_compiler_has_no_complaint(compiler: str, extension: dict[str, Any], tmp_path: Path) -> None:
    """The C code compiles without a warning, with the flags of the build and every common warning on."""
    if not shutil.which(compiler):
        pytest.skip(f"no {compiler}")
    if not HEADERS.exists():
        pytest.skip("no headers of Python")
    flags = [*extension["extra-compile-args"], "-fPIC", "-Wall", "-Wextra", "-Werror", "-isystem", str(HEADERS.parent)]
    command = [compiler, *flags, "-c", *extension["sources"], "-o", str(tmp_path / "built.o")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
