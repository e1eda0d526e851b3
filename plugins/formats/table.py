"""A format given by nothing but its table: everything about it is derived by the base class."""

from __future__ import annotations

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_plugins.formats.settings import TableSettings


class Table(Format):
    """The format whose code ``c`` is worth ``values[c]``; values beyond the ends saturate."""

    def __init__(self, name: str, values: Tensor) -> None:
        self.name = name
        self.bits = (len(values) - 1).bit_length()
        self._values = values.to(torch.float32)

    def __repr__(self) -> str:
        return f"Table({self.name!r}, {self.bits} bits)"

    def code_values(self) -> Tensor:
        """See :class:`Format`."""
        return self._values


def build(name: str, settings: TableSettings) -> Table:
    """Build the format of a table."""
    return Table(name, torch.tensor(settings.numbers(), dtype=torch.float32))
