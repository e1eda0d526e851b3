"""Machines with a store between them."""

from machines import elsewhere as elsewhere
from machines import make_run as make_run
from machines import on_shelf as on_shelf
from machines import quick as quick
from machines import store as store
