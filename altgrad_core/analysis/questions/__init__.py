"""The questions of a report, a module each. Import the modules, not this package."""
