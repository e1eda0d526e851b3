"""The report of a running suite, served on this machine alone and kept up to date."""
