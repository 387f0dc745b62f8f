"""Rows about what is served: versions, the data that they meet and their scores, the processes."""

from deploy.grafana.panels import Panel, graph, heat_map, number
from deploy.grafana.queries import CHOSEN, HERE, mean, percentiles, quantile, rate, total

OF_ALL = 'job="dinserve",version=~"$version"'  # recorded for all instances together

MODEL: list[Panel] = [
    number(
        "Serving",
        "none",
        f"max by (version, engine) (din_model_info{{{HERE}}}) == 1",
        "The version that serves, and the engine that computes it. Two while they change.",
        named="{{version}} ({{engine}})",
        span=6,
    ),
    number(
        "Age of the model",
        "s",
        f"time() - max (din_model_created_timestamp_seconds{{{HERE}}} and on (instance, version) din_model_info == 1)",
        "Time since the version that serves was made. After 30 days there is an alert.",
        (None, "green"),
        (14 * 86400, "orange"),
        (30 * 86400, "red"),
        span=6,
    ),
    number(
        "Versions refused",
        "none",
        f'sum(din_version_loads_total{{{HERE},result="refused"}}) or vector(0)',
        "Versions that failed their checks since the processes started; GET /health says why.",
        (None, "green"),
        (0.5, "red"),
        span=6,
    ),
    number(
        "Start to ready",
        "s",
        f"max (din_ready_seconds{{{HERE}}})",
        "Time from the start of the slowest process to ready.",
        span=6,
    ),
    graph(
        "Requests by version",
        "reqps",
        {"{{version}} {{role}}": rate("din_version_duration_seconds_count", "version, role", CHOSEN)},
        "Which version answers how many requests, as serving, canary or shadow.",
        stacked=True,
    ),
    graph(
        "Time by version",
        "s",
        {
            f"{{{{version}}}} {{{{role}}}} {each}": f"job_version:din_version_duration_seconds:{each}{{{OF_ALL}}}"
            for each in ("p50", "p99")
        },
        "Is the canary slower? For a shadow it is the time of packing and running its copy. All instances.",
    ),
    graph(
        "Versions loaded and refused",
        "none",
        {"{{result}}": total("din_version_loads_total", "result")},
        "Since the processes started. A step is a version that came, was chosen, or failed its checks.",
    ),
    graph(
        "Shadow's requests",
        "reqps",
        {"{{outcome}}": rate("din_shadow_requests_total", "outcome")},
        "compared; skipped, because it would have delayed others; failed on the shadow.",
        stacked=True,
    ),
    graph(
        "Shadow's difference",
        "none",
        {
            "{{version}} p50": quantile(0.5, "din_shadow_difference", "version", CHOSEN),
            "{{version}} p99": quantile(0.99, "din_shadow_difference", "version", CHOSEN),
        },
        "Mean absolute difference between the shadow's probabilities and those that were answered, a request.",
    ),
    graph(
        "Compilations and fallbacks",
        "none",
        {
            "compiled at {{phase}}": f"sum by (phase) (din_compilations_total{{{HERE}}})",
            "fallbacks to TensorFlow": total("din_engine_fallbacks_total"),
        },
        "Since the processes started. Compilations at traffic should be 0, and so should fallbacks.",
    ),
    graph(
        "Time of the last load",
        "s",
        {"{{instance}}": total("din_load_seconds", "instance")},
        "Reading, warming and checking the version that was loaded last.",
        span=12,
    ),
    graph(
        "Memory of the last load",
        "bytes",
        {"{{instance}}": total("din_load_memory_bytes", "instance")},
        "Resident memory that loading the version added.",
        span=12,
    ),
]

DATA: list[Panel] = [
    heat_map(
        "Scores",
        "none",
        rate("din_probability_bucket", "le", CHOSEN),
        "Distribution of the probabilities of the chosen versions: choose one to see it alone.",
    ),
    graph(
        "Mean score and clicks in training",
        "percentunit",
        {
            "{{version}} mean score": f"job_version:din_probability:mean5m{{{OF_ALL}}}",
            "{{version}} clicks in training": f"max by (version) (din_training_click_ratio{{{OF_ALL}}})",
        },
        "A calibrated model scores on average what is clicked. Candidates that are chosen well lie above all items; "
        "what tells is a change. All instances.",
    ),
    graph(
        "Drift of the scores",
        "none",
        {"{{version}}": f"max by (version) (din_score_drift_psi{{{CHOSEN}}})"},
        "Population stability index against the scores of the test rows: below 0.1 the same, above 0.25 another "
        "population. Needs 10,000 scores.",
        limit=0.25,
    ),
    graph(
        "Ids never seen in training",
        "percentunit",
        {"{{part}}": f"{rate('din_ids_unseen_total', 'part')} / {rate('din_ids_checked_total', 'part')}"},
        "Share of the item ids, in a sample of the requests. Strangers share buckets with others: their scores mean "
        "little.",
        limit=0.3,
    ),
    graph(
        "Ids never seen, over an hour",
        "percentunit",
        {"{{part}}": 'job_part:din_ids_unseen:ratio_rate1h{job="dinserve"}'},
        "What the alert looks at. All instances.",
        limit=0.3,
    ),
    graph(
        "Histories empty and cut",
        "percentunit",
        {
            "empty": f"{rate('din_empty_histories_total')} / {rate('din_request_candidates_count')}",
            "cut to the newest": f"{rate('din_history_truncated_total')} / {rate('din_request_candidates_count')}",
        },
        "Share of the requests without any history, and of those with a longer one than the model takes.",
    ),
    graph(
        "Length of histories",
        "none",
        {
            "{{sequence}} p50": quantile(0.5, "din_history_length", "sequence"),
            "{{sequence}} p99": quantile(0.99, "din_history_length", "sequence"),
        },
        "As sent; the model keeps the newest.",
        span=12,
    ),
    graph(
        "Candidates in a request",
        "none",
        percentiles("din_request_candidates") | {"mean": mean("din_request_candidates")},
        "The cost of a request grows with them.",
        span=12,
    ),
    graph(
        "Items in the catalog",
        "none",
        {
            "{{instance}}": total("din_catalog_items", "instance"),
            "{{result}}": total("din_catalog_loads_total", "result"),
        },
        "And how often its file was read, or refused. 0 without a catalog.",
        span=12,
    ),
    graph(
        "Ids the catalog does not have",
        "none",
        {"a second": rate("din_catalog_unknown_ids_total")},
        "Of requests that leave tags out. They take the version's default tag.",
        span=12,
    ),
]

PROCESS: list[Panel] = [
    number(
        "Build",
        "none",
        f"count by (version, python, tensorflow) (din_build_info{{{HERE}}})",
        "What runs. Two while a deployment goes on.",
        named="{{version}}, Python {{python}}, TensorFlow {{tensorflow}}",
        span=16,
    ),
    number(
        "Youngest process",
        "s",
        f"time() - max (process_start_time_seconds{{{HERE}}})",
        "Time since the process that started last did.",
        span=8,
    ),
    graph(
        "CPU",
        "none",
        {"{{instance}}": rate("process_cpu_seconds_total", "instance")},
        "CPUs in use, of those that the executors and the event loop may have.",
    ),
    graph(
        "Memory",
        "bytes",
        {"{{instance}}": total("process_resident_memory_bytes", "instance")},
        "Resident memory. It rises while a version is loaded, and falls when the old one is freed.",
    ),
    graph(
        "Open files",
        "none",
        {"{{instance}}": total("process_open_fds", "instance")},
        "Connections are most of them.",
    ),
]
