"""Commands: `score`, `bench` and `top` ask a running server; `train`, `completion`. What they need is imported late."""
