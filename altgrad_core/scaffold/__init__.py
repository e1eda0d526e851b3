"""Small packages to begin with: what ``altgrad-bench new`` writes."""
