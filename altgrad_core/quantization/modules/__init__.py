"""Modules that compute with rounded tensors, and what quantises each of their tensors."""
