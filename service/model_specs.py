"""What every metric is that tells whether a model still fits what it is asked: its age, its data, its scores."""

from service.spec import Spec

MODEL_SPECS = (
    Spec(
        "din_model_created_timestamp_seconds",
        "gauge",
        ("version",),
        "When the version was made, as its manifest says, in Unix time: time() less this is the model's age. Set when "
        "the version is ready. The last 8 versions are kept.",
    ),
    Spec(
        "din_model_loaded_timestamp_seconds",
        "gauge",
        ("version",),
        "When the version was loaded, in Unix time, in the worker that was last. Set when the version is ready. The "
        "last 8 versions are kept.",
    ),
    Spec(
        "din_training_click_ratio",
        "gauge",
        ("version",),
        "Clicks among the test rows of the version's training; absent where its manifest has no scores. Set when the "
        "version is ready. The last 8 versions are kept.",
    ),
    Spec(
        "din_score_drift_psi",
        "gauge",
        ("version",),
        "Population stability index of the version's probabilities against those of its test rows; what was answered "
        "15 minutes ago counts half. Absent until 10,000 of them count, and where the manifest has no scores to "
        "compare with. Set when the metrics are read. The last 8 versions are kept.",
    ),
    Spec(
        "din_ids_checked_total",
        "counter",
        ("part",),
        "Item ids looked up among those met in training: of at most 5 requests a second, 512 of each part at most. "
        "Counted when the request has been answered.",
    ),
    Spec(
        "din_ids_unseen_total",
        "counter",
        ("part",),
        "Those that training never met, but for 1 % of them, which the look-up takes for met. Counted when the request "
        "has been answered.",
    ),
    Spec(
        "din_build_info",
        "gauge",
        ("version", "python", "tensorflow", "prometheus", "machine"),
        "1; the labels are the versions of what runs, tensorflow being empty where it is not installed. Set at the "
        "start.",
    ),
)
