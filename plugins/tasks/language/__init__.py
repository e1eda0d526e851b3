"""The task ``causal_lm``: next-token prediction on texts of any source."""
