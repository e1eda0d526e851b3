"""The one exception that a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can put right: a setting, a file, a missing package.

    The message is one readable paragraph: what is wrong, where, and what would be right. The command
    line prints it without a traceback and exits with code 2.
    """
