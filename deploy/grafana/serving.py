"""Rows about requests: how many and how fast, where their time goes, batches, the queue."""

from deploy.grafana.panels import Panel, graph, heat_map, number
from deploy.grafana.queries import HERE, mean, percentiles, quantile, rate, total

OVERVIEW: list[Panel] = [
    number(
        "Requests",
        "reqps",
        rate("din_requests_total"),
        "Requests answered in a second, whatever the answer.",
    ),
    number(
        "Not answered",
        "percentunit",
        'job:din_errors:ratio_rate5m{job="dinserve"}',
        "Share of the requests of the last 5 minutes that ended as overloaded, not_ready, deadline_exceeded or "
        "internal; callers' own mistakes do not count. The objective is 0.1 %. All instances.",
        (None, "green"),
        (0.001, "orange"),
        (0.01, "red"),
    ),
    number(
        "Half within",
        "s",
        'job:din_request_duration_seconds:p50{job="dinserve"}',
        "Median of the request time in the last 5 minutes. All instances.",
        (None, "green"),
    ),
    number(
        "99 of 100 within",
        "s",
        'job:din_request_duration_seconds:p99{job="dinserve"}',
        "99th percentile of the request time in the last 5 minutes; above 0.1 s somebody is called. All instances.",
        (None, "green"),
        (0.05, "orange"),
        (0.1, "red"),
    ),
    number(
        "Error budget left",
        "percentunit",
        '1 - job:din_errors:ratio_rate30d{job="dinserve"} / 0.001',
        "What is left of the failures that 30 days may have, 0.1 % of the requests. Below 0 the objective is missed. "
        "All instances, as far back as Prometheus remembers.",
        (None, "red"),
        (0, "orange"),
        (0.25, "green"),
    ),
    number(
        "Servers",
        "none",
        'sum(up{job="dinserve"})',
        "Servers that show their metrics. All instances.",
        (None, "red"),
        (1, "green"),
    ),
    graph(
        "Requests by outcome",
        "reqps",
        {"{{code}}": rate("din_requests_total", "code")},
        "ok, an error code, or client_closed when nobody waited for the answer.",
        stacked=True,
    ),
    graph(
        "Request time",
        "s",
        percentiles("din_request_duration_seconds") | {"mean": mean("din_request_duration_seconds")},
        "From the headers' arrival until the answer is handed over. Points are requests that were traced.",
        exemplars=True,
        limit=0.1,
    ),
    graph(
        "Error budget burn",
        "x",
        {window: f'job:din_errors:ratio_rate{window}{{job="dinserve"}} / 0.001' for window in ("5m", "1h", "6h", "3d")},
        "How many times faster than allowed the error budget is used up; at 1 it lasts exactly 30 days. An alert fires "
        "at 14.4 in an hour, 6 in six hours or 1 in three days. All instances.",
        limit=1,
    ),
]

TIME: list[Panel] = [
    graph(
        "Mean time by stage",
        "s",
        {"{{stage}}": mean("din_stage_duration_seconds", "stage")},
        "Where a scored request's time goes on average. Usually infer is most of it; queue grows with the load.",
        stacked=True,
    ),
    graph(
        "Slowest requests by stage",
        "s",
        {"{{stage}}": quantile(0.99, "din_stage_duration_seconds", "stage")},
        "99th percentile of each stage. They are not of the same requests, so they do not add up to the whole. Points "
        "are requests that were traced.",
        exemplars=True,
    ),
    heat_map(
        "Request time, distribution",
        "s",
        rate("din_request_duration_seconds_bucket", "le"),
        "How many requests in a second took how long. Two bands are two kinds of requests, or a slow instance.",
    ),
    graph(
        "Stages of all instances",
        "s",
        {
            "{{stage}} p50": 'job_stage:din_stage_duration_seconds:p50{job="dinserve"}',
            "{{stage}} p99": 'job_stage:din_stage_duration_seconds:p99{job="dinserve"}',
        },
        "Over 5 minutes each, recorded: quick to draw for weeks. All instances.",
        span=24,
    ),
]

BATCHING: list[Panel] = [
    graph(
        "Executor utilisation",
        "percentunit",
        {"{{instance}}": f"job_instance:din_executors:utilisation5m{{{HERE}}}"},
        "Share of the last 5 minutes in which executors had a batch. Above 0.8 there is little left for bursts.",
        limit=0.8,
    ),
    graph(
        "Batches",
        "cps",
        {"{{engine}}": rate("din_batches_total", "engine")},
        "Batches run in a second, by the engine that ran them.",
        stacked=True,
    ),
    graph(
        "Candidates scored",
        "cps",
        {"candidates": rate("din_batch_rows_sum")},
        "Candidates that the engine computes in a second: the real measure of the load.",
    ),
    graph(
        "Candidates in a batch",
        "none",
        percentiles("din_batch_rows") | {"mean": mean("din_batch_rows")},
        "Large batches are efficient; they come with load, not with waiting.",
    ),
    graph(
        "Requests in a batch",
        "none",
        percentiles("din_batch_requests") | {"mean": mean("din_batch_requests")},
        "1 when there is little to do; more when requests wait for each other.",
    ),
    graph(
        "Padding",
        "percentunit",
        {"mean": mean("din_batch_padding_ratio")},
        "Share of the engine's work that is spent on padding. The native engine pads nothing: 0.",
    ),
]

QUEUE: list[Panel] = [
    graph(
        "Candidates waiting",
        "none",
        {"{{instance}}": total("din_queue_rows", "instance")},
        "Candidates that wait for an executor at the moment of the scrape.",
    ),
    graph(
        "Waiting time",
        "s",
        {
            "oldest": f"max (din_queue_age_seconds{{{HERE}}})",
            "predicted": f"max (din_predicted_wait_seconds{{{HERE}}})",
        },
        "How long the oldest request has waited, and how long one that arrives now is expected to wait. Requests are "
        "refused when that is more than two fifths of their time.",
    ),
    graph(
        "Refused as overloaded",
        "reqps",
        {"{{reason}}": rate("din_shed_total", "reason")},
        "queue: too many candidates wait already. deadline: the request would have waited too long for its own.",
    ),
    graph(
        "Requests in flight",
        "none",
        {"{{instance}}": total("din_in_flight_requests", "instance")},
        "Requests being handled at the moment of the scrape.",
    ),
    graph(
        "Connections",
        "none",
        {"{{instance}}": total("din_connections", "instance")},
        "Open connections. A balancer that spreads connections, not requests, shows here.",
    ),
    graph(
        "Connections closed by the server",
        "cps",
        {"{{reason}}": rate("din_connections_refused_total", "reason")},
        "limit: too many are open. Timeouts: the rest of a request did not come. unread: the answer was not taken.",
    ),
]
