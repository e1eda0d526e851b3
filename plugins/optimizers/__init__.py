"""Built-in optimizers: the offers. Free of torch."""
