"""Built-in formats: the offers. Free of torch."""
