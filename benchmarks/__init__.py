"""How fast the service is, and against what."""
