"""Importing this has at hand what every run asks for first, for processes that are copied from one that did.

The plugins' announcements, versions and revision for the record, and compiled rounding.
"""

from __future__ import annotations

import importlib

from altgrad_core.execution.environment import PACKAGES, git_revision, installed_version
from altgrad_core.interfaces.backend import cpu_backend
from altgrad_core.registry.catalog import catalog

catalog()
git_revision()
for name in PACKAGES:
    installed_version(name)
if cpu_backend() == "numba":
    importlib.import_module("altgrad_core.quantization.kernels.compiled")
