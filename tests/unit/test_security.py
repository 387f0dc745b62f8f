"""The security policy speaks of what there is."""

import re

from service.artifact import MANIFEST
from service.config import Settings
from tests.readme import ROOT

POLICY = (ROOT / "SECURITY.md").read_text()


def test_policy_names_settings_that_exist() -> None:
    """Every variable of SECURITY.md is a setting, and none that limits a client or keeps a secret is left out."""
    named = {name.removeprefix("DIN_").lower() for name in re.findall(r"DIN_[A-Z_]+", POLICY)}
    assert named <= set(Settings.model_fields)
    about = re.compile(r"max_(?!batch|delay)|_timeout_|token|tls_|allowed_" + MANIFEST.partition(".")[0])
    assert {name for name in Settings.model_fields if about.search(name)} <= named


def test_policy_names_files_that_exist() -> None:
    """Every file of the checkout that SECURITY.md speaks of is there."""
    files = re.findall(r"`([\w/.-]+\.(?:toml|yml|c|py))`", POLICY)
    assert files
    assert all((ROOT / file).is_file() for file in files)
