"""Makes the rules into a manifest for the Prometheus operator: `python -m deploy.prometheus.kubernetes`."""

from pathlib import Path

import yaml

RULES = Path(__file__).with_name("rules")
FILE = RULES.parents[1] / "kubernetes" / "components" / "prometheus" / "prometheus-rule.yaml"
HEAD = """\
# Made from deploy/prometheus/rules by `python -m deploy.prometheus.kubernetes`. deploy/prometheus/RUNBOOKS.md says what
# each alert asks for; `externalLabels: { runbooks: ... }` of the Prometheus says where you keep it.
"""


class _Dumper(yaml.SafeDumper):
    """Writes what has several lines as several lines."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def render() -> str:
    """The text of the manifest."""
    name = {"app.kubernetes.io/name": "dinserve"}
    groups = [group for file in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(file.read_text())["groups"]]
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "dinserve", "labels": name},
        "spec": {"groups": groups},
    }
    return HEAD + yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=120)


if __name__ == "__main__":
    FILE.write_text(render())
