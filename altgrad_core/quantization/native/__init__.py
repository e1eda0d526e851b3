"""Native execution: products of 8-bit codes in the hardware's own units, where it has them."""
