"""Built-in trackers: the offers. Free of torch."""
