"""Execution: one run, one process, one run directory. Import the modules, not this package."""
