"""Runs that are kept on an object store, or anything else that fsspec has a file system for."""
