"""A job that imports what a run imports, and does nothing; see :mod:`altgrad_core.testing.overhead`."""

import altgrad_core.execution.ready
import altgrad_core.execution.worker  # noqa: F401
