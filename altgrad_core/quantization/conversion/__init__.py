"""Which modules of a model are converted, by which rules, and how a failure is undone."""
