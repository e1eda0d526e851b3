"""One weight that lives on its grid, and when its scale changes."""
