"""Settings of the built-in trackers. Planning reads them: nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from altgrad_core.interfaces.plugin import Settings


class JsonlSettings(Settings):
    """Settings of ``jsonl``."""

    path: Path = Field(
        Path("tracker.jsonl"),
        description="file to append to; a relative path starts at the run directory",
        json_schema_extra={"identity": False},
    )


class WandbSettings(Settings):
    """Settings of ``wandb``."""

    mode: Literal["online", "offline", "disabled"] = Field(
        "online", description="offline writes to the run directory, for `wandb sync` later"
    )
    project: str = Field("altgrad-bench", min_length=1)
    entity: str | None = Field(None, description="team or user; null is your default")
    group: str | None = Field(None, description="null is the suite's name")
    name: str | None = Field(None, description="null is the condition with its seed")
    tags: tuple[str, ...] = ()
