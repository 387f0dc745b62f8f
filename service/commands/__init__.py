"""Commands that ask a running server: `score`, `bench` and `top`; and `completion`. What they need is imported late."""
