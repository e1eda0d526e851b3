"""Values and codes: rounding to a grid, grid values in as few bits as they need, positions on the ladder."""
