"""Conformance checks for plugins of any author."""
