"""Importing this makes ``shelf://`` a store, here and in every copy of the process, and has nobody wait for it long."""

from __future__ import annotations

import shelf as shelf

from altgrad_core.execution import store_hold
from altgrad_core.results.remote import courier, store

store.PAUSES = (0.0,)
courier.LOOK_SECONDS = 0.05
courier.PATIENCE_SECONDS = 2.0
store_hold.FIRST_SECONDS = 2.0
store_hold._POLL_SECONDS = 1.0
