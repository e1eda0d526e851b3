"""Who holds a run, or a suite's folder. Import the modules, not this package."""
