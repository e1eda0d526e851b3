"""From results to statistics, plots and the report. Import the modules, not this package."""
