"""Importing this has what rounds on the CPU at hand, for processes that are copied from one that did."""

from __future__ import annotations

import importlib

from altgrad_core.interfaces.backend import cpu_backend

if cpu_backend() == "numba":
    importlib.import_module("altgrad_core.quantization.kernels.compiled")
