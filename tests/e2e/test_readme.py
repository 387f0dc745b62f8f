"""The README's first screen against a real server and the committed version."""

import json
import shutil
import subprocess

import pytest

from tests import readme
from tests.servers import StartServer


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's command needs curl, which is not installed")
def test_command_of_the_readme_gets_the_answer_of_the_readme(start_server: StartServer) -> None:
    """The README's curl, sent to a server of the committed version, is answered as the README says."""
    command = next(block for block in readme.fenced("sh") if "/score" in block)
    expected = json.loads(readme.fenced("json")[0])
    with start_server(readme.ROOT / "model_artifacts" / "din") as server:
        shell = ["sh", "-c", command.replace("http://127.0.0.1:8000", server.url)]
        answer = json.loads(subprocess.run(shell, check=True, capture_output=True).stdout)
    assert answer.keys() == expected.keys()
    assert answer["latency_ms"].keys() == expected["latency_ms"].keys()
    assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
    assert (answer["ranking"], answer["model"]) == (expected["ranking"], expected["model"])
