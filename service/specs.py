"""What every metric is: its name, its type, its labels, what it means and where its clock starts."""

from typing import Literal

from service.model_specs import MODEL_SPECS
from service.spec import (
    DIFFERENCE_BUCKETS,
    LENGTH_BUCKETS,
    RATIO_BUCKETS,
    REQUEST_BUCKETS,
    ROW_BUCKETS,
    SHARE_BUCKETS,
    TIME_BUCKETS,
    Spec,
)

SPECS = (
    Spec(
        "din_requests_total",
        "counter",
        ("code",),
        "Requests answered, by outcome: ok, an error code, or client_closed when nobody waited for the answer. "
        "Counted when the answer has been handed to the server.",
    ),
    Spec(
        "din_request_duration_seconds",
        "histogram",
        (),
        "Time of every counted request. Starts when its headers have arrived, ends when its answer has been handed to "
        "the server.",
        TIME_BUCKETS,
    ),
    Spec(
        "din_stage_duration_seconds",
        "histogram",
        ("stage",),
        "Time of each stage of a scored request. parse starts when the last byte of the body has arrived, queue when "
        "the request is admitted, pack when its batch is released, infer when the batch is packed, respond when the "
        "probabilities are back in the request's task; respond ends when the answer is rendered.",
        TIME_BUCKETS,
    ),
    Spec(
        "din_batch_rows",
        "histogram",
        (),
        "Candidates in a batch. Observed when the engine has run it.",
        ROW_BUCKETS,
    ),
    Spec(
        "din_batch_requests",
        "histogram",
        (),
        "Requests, or parts of large ones, in a batch. Observed when the engine has run it.",
        REQUEST_BUCKETS,
    ),
    Spec(
        "din_batch_padding_ratio",
        "histogram",
        (),
        "Share of a batch's work spent on padding, 0 to 1. Observed when the engine has run it.",
        RATIO_BUCKETS,
    ),
    Spec(
        "din_in_flight_requests",
        "gauge",
        (),
        "Requests being handled. Counted from their headers' arrival until the answer is rendered; of several workers, "
        "told every second.",
    ),
    Spec(
        "din_connections",
        "gauge",
        (),
        "Connections open now, those among them that are being refused. Counted from accepting to closing.",
    ),
    Spec(
        "din_connections_refused_total",
        "counter",
        ("reason",),
        "Connections closed by the server: limit, beyond DIN_MAX_CONNECTIONS; header_timeout and body_timeout, where "
        "the rest of a request did not come; headers_too_large; malformed, no HTTP; unread, where the client did not "
        "take its answer. Counted when that is known.",
    ),
    Spec(
        "din_queue_rows",
        "gauge",
        (),
        "Candidates that wait for an executor. Set when the metrics are read; of several workers, every second.",
    ),
    Spec(
        "din_queue_age_seconds",
        "gauge",
        (),
        "How long the oldest request that waits for an executor has waited; 0 when none waits. In the worker where it "
        "is longest. Set when the metrics are read; of several workers, every second.",
    ),
    Spec(
        "din_executors",
        "gauge",
        (),
        "Executors, which run a batch each at a time. Set at the start.",
    ),
    Spec(
        "din_executor_busy_seconds_total",
        "counter",
        (),
        "Time that executors had a batch, from its release until its answers are on the event loop, those that run now "
        "included: its rate over din_executors is their utilisation. Counted when the metrics are read; of several "
        "workers, every second.",
    ),
    Spec(
        "din_predicted_wait_seconds",
        "gauge",
        (),
        "How long a request that arrives now is expected to wait; two fifths of the time to its deadline are let "
        "in. In the slowest worker. Set when the metrics are read; of several workers, every second.",
    ),
    Spec(
        "din_shed_total",
        "counter",
        ("reason",),
        "Requests refused as overloaded: queue, because DIN_MAX_QUEUE_ROWS wait already; deadline, because they would "
        "have waited too long for theirs; standing, because others were for a second, and 10 ms of work wait. Counted "
        "when that is known.",
    ),
    Spec(
        "din_request_candidates",
        "histogram",
        (),
        "Candidates of a request that could be parsed. Observed when it ends.",
        ROW_BUCKETS,
    ),
    Spec(
        "din_history_length",
        "histogram",
        ("sequence",),
        "Ids and tags in the history of a request, as sent: the model keeps its newest. Observed when it ends.",
        LENGTH_BUCKETS,
    ),
    Spec(
        "din_history_truncated_total",
        "counter",
        (),
        "Requests whose history was longer than the model's maximum; the newest was kept. Counted when parsed.",
    ),
    Spec(
        "din_empty_histories_total",
        "counter",
        (),
        "Requests with no history at all, neither ids nor tags. Counted when parsed.",
    ),
    Spec(
        "din_model_info",
        "gauge",
        ("name", "version", "engine"),
        "1 for the version that is serving, 0 for one that was. Set when the metrics are read.",
    ),
    Spec(
        "din_batches_total",
        "counter",
        ("engine",),
        "Batches run, by the engine that ran them. Counted when the engine has run it.",
    ),
    Spec(
        "din_engine_fallbacks_total",
        "counter",
        (),
        "Times that a version is served with TensorFlow because the native engine could not be used or differed; the "
        "log and GET /health have the reason. Counted when the version is ready.",
    ),
    Spec(
        "din_compilations_total",
        "counter",
        ("phase",),
        "Programs that the engine compiled: load, before the version was ready; traffic, while a batch of requests "
        "waited, which should never be. Counted when the version is ready, or when the engine has run the batch.",
    ),
    Spec(
        "din_ready_seconds",
        "gauge",
        (),
        "Time from start to ready, of the slowest worker. Starts when the process begins to run this package; 0 until "
        "it is ready.",
    ),
    Spec(
        "din_load_seconds",
        "gauge",
        (),
        "Time that loading the version took, in the slowest worker: reading, warming, golden answers. Starts when its "
        "manifest is opened; 0 until it is ready.",
    ),
    Spec(
        "din_load_memory_bytes",
        "gauge",
        (),
        "Resident memory that loading the version added, in all workers. Set when it is ready.",
    ),
    Spec(
        "din_version_loads_total",
        "counter",
        ("result",),
        "Versions that were loaded, and that were refused because they failed their checks; the log and GET /health "
        "have the reason. Counted when the version is ready, or has failed.",
    ),
    Spec(
        "din_version_duration_seconds",
        "histogram",
        ("version", "role"),
        "Time of the requests that a version answered, as serving or as canary. Starts and ends as total in the "
        "answer; for a shadow the time of packing and running its copy. The last 8 versions are kept.",
        TIME_BUCKETS,
    ),
    Spec(
        "din_probability",
        "histogram",
        ("version",),
        "Probabilities that a version answered, its shadow copies among them: the distribution of its scores. Counted "
        "when the request has ended, or, of several workers, within a second. The last 8 versions are kept.",
        SHARE_BUCKETS,
    ),
    Spec(
        "din_shadow_requests_total",
        "counter",
        ("outcome",),
        "Requests of the shadow's share: compared; skipped, because it would have delayed others; failed on the "
        "shadow. Counted when that is known.",
    ),
    Spec(
        "din_shadow_difference",
        "histogram",
        ("version",),
        "Mean absolute difference between a shadow's probabilities and those that were answered, a request. Observed "
        "when the shadow has run it. The last 8 versions are kept.",
        DIFFERENCE_BUCKETS,
    ),
    Spec(
        "din_catalog_items",
        "gauge",
        (),
        "Items in the catalog; 0 without one. Set when it has been read.",
    ),
    Spec(
        "din_catalog_loads_total",
        "counter",
        ("result",),
        "Times that the catalog was read: loaded, or refused because its file was no catalog; the log and GET /health "
        "have the reason. Counted when that is known.",
    ),
    Spec(
        "din_catalog_unknown_ids_total",
        "counter",
        (),
        "Ids whose tag was left out of a request, and that the catalog does not have either. Counted when parsed.",
    ),
    *MODEL_SPECS,
)
SPEC = {spec.name: spec for spec in SPECS}

# How a gauge adds up over several processes: requests and bytes add, a version serves when it serves anywhere.
MODES: dict[str, Literal["livesum", "livemax"]] = {
    "din_in_flight_requests": "livesum",
    "din_connections": "livesum",
    "din_queue_rows": "livesum",
    "din_predicted_wait_seconds": "livemax",
    "din_model_info": "livemax",
    "din_ready_seconds": "livemax",
    "din_load_seconds": "livemax",
    "din_load_memory_bytes": "livesum",
    "din_queue_age_seconds": "livemax",
    "din_executors": "livesum",
    "din_model_created_timestamp_seconds": "livemax",
    "din_model_loaded_timestamp_seconds": "livemax",
    "din_training_click_ratio": "livemax",
    "din_build_info": "livemax",
    "din_catalog_items": "livemax",
}
