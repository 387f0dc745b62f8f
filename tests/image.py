"""What the container files of the checkout say."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]


def read_yaml(path: str | Path) -> Any:
    """Return what a YAML file of the checkout holds."""
    return yaml.safe_load((ROOT / path).read_text())


def dockerfile() -> dict[str, list[str]]:
    """Return the arguments of each kind of instruction in the Dockerfile, in order."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            instruction, _, arguments = line.partition(" ")
            found.setdefault(instruction, []).append(arguments)
    return found


def image_environment() -> dict[str, str]:
    """Return the variables that the image sets."""
    return dict(re.findall(r"(\w+)=(\S+)", dockerfile()["ENV"][-1]))
