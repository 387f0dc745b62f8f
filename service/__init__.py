"""dinserve: online click-through-rate scoring with a Deep Interest Network."""

__version__ = "0.1.0"
