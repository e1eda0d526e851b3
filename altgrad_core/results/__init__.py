"""Run directories, statuses and the collected table. Import the modules, not this package."""
