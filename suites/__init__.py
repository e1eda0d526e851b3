"""The shipped suites, found by name with ``importlib.resources``."""
