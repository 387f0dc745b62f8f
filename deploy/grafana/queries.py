"""PromQL that panels have in common: each asks for what is chosen at the top of the dashboard."""

HERE = 'job="dinserve",instance=~"$instance"'
CHOSEN = f'{HERE},version=~"$version"'


def rate(metric: str, by: str = "", which: str = HERE) -> str:
    """How much a counter grows in a second, added up by labels."""
    return f"sum{_by(by)} (rate({metric}{{{which}}}[$__rate_interval]))"


def mean(histogram: str, by: str = "", which: str = HERE) -> str:
    """What a histogram observes on average."""
    return f"{rate(f'{histogram}_sum', by, which)} / {rate(f'{histogram}_count', by, which)}"


def quantile(q: float, histogram: str, by: str = "", which: str = HERE) -> str:
    """What a share `q` of a histogram's observations does not exceed."""
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', f'{by}, le' if by else 'le', which)})"


def percentiles(histogram: str) -> dict[str, str]:
    """The middle and the end of a histogram."""
    return {"p50": quantile(0.5, histogram), "p99": quantile(0.99, histogram)}


def total(gauge: str, by: str = "") -> str:
    """A gauge, added up over the instances."""
    return f"sum{_by(by)} ({gauge}{{{HERE}}})"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
