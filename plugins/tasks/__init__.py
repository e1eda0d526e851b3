"""Built-in tasks: the offers. Free of torch."""
