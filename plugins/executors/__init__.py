"""Built-in executors: the offers. Free of torch."""
