"""The version of the run directory's layout, on which its writers and readers agree."""

from __future__ import annotations

LAYOUT = 1
"""Another version's directories are refused with a message."""
