"""The OpenAPI document is what the server does, and no request that it can describe makes the server fail."""

import os
import subprocess
import sys
from pathlib import Path

from tests.readme import ROOT
from tests.servers import Server, StartServer

ADMIN = "admin-token-of-the-test"
EXAMPLES = int(os.environ.get("CHAOS_EXAMPLES", "60"))  # per operation
LONGEST_S = 120


def test_server_is_as_documented(start_server: StartServer, model_dir: Path, tmp_path: Path) -> None:
    """Schemathesis, with every check and phase, finds no answer that the document lacks, and the server scores on."""
    (tmp_path / "items.csv").write_text("id,tag,title\n" + "".join(f"{n},{n % 7},Item {n}\n" for n in range(500)))
    with start_server(model_dir, admin_token=ADMIN, catalog=tmp_path / "items.csv") as server:
        document = f"{server.url}/openapi.json"
        options = ["--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure"]
        bounds = ["--max-examples", str(EXAMPLES), "--generation-database", "none", "--no-color"]
        config = ["--config-file", str(Path(__file__).with_name("schemathesis.toml"))]
        command = [sys.executable, "-m", "schemathesis.cli", *config, "run", document, *options, *bounds]
        done = subprocess.run(
            [*command, "--header", f"Authorization: Bearer {ADMIN}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.chaos.scorable"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert "No issues found" in done.stdout
        assert scored(server) > EXAMPLES // 6
        assert "Traceback" not in server.log.read_text()


def scored(server: Server) -> int:
    """How many requests the server has answered with probabilities."""
    lines = server.poll("/metrics", lambda response: response.status_code == 200).text.splitlines()
    (line,) = [line for line in lines if line.startswith('din_requests_total{code="ok"}')]
    return int(float(line.split()[1]))
