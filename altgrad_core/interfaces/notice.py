"""What a tracker may tell somebody about a suite, as it happens where the suite was started. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

NoticeKind = Literal["suite_begins", "run_retried", "run_failed", "suite_ended"]


@dataclass(frozen=True)
class Notice:
    """Something happened to a suite, or to one of its runs.

    kind:
        ``suite_begins``, before anything is run; ``run_retried``: a run ended without a result and is tried
        again; ``run_failed``: it is not; ``suite_ended``, however it did.
    text:
        a sentence for a person.
    folder:
        of the suite's runs.
    run, label, status:
        of a notice of a run: its id, what it is called, and how it ended.
    counts:
        of ``suite_ended``: status -> runs that have it.
    """

    kind: NoticeKind
    suite: str
    text: str
    folder: Path
    run: str = ""
    label: str = ""
    status: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
