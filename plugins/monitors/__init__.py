"""Built-in monitors: the offers. Free of torch."""
