"""The step loop: batches, updates, evaluation, checkpoints. Import the modules, not this package."""
