"""Settings of the built-in trackers. Planning reads them: nothing heavy is imported here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from altgrad_core.interfaces.notice import NoticeKind
from altgrad_core.interfaces.plugin import Settings


class JsonlSettings(Settings):
    """Settings of ``jsonl``."""

    path: Path = Field(
        Path("tracker.jsonl"),
        description="file to append to; a relative path starts at the run directory",
        json_schema_extra={"identity": False},
    )


class NotifySettings(Settings):
    """Settings of ``notify``. Where notices go is in the environment variable ``ALTGRAD_NOTIFY``."""

    on: tuple[NoticeKind, ...] = Field(
        ("run_retried", "run_failed", "suite_ended"),
        description="what to tell: suite_begins, run_retried, run_failed, suite_ended",
    )


LONGEST_NAME = 128
"""Characters of a project, a group or a run's name that W&B takes."""
_LONGEST_TAG = 64
_NOT_IN_PROJECTS = "/\\#?%:"


class WandbSettings(Settings):
    """Settings of ``wandb``. What is null is left to W&B: its environment variables and defaults."""

    mode: Literal["online", "offline", "disabled"] | None = Field(
        None,
        description="offline writes to the run directory, for `wandb sync` later; null is "
        "WANDB_MODE, else online",
    )
    project: str | None = Field(
        None, description="null is WANDB_PROJECT, else W&B's default for where you are"
    )
    entity: str | None = Field(
        None, description="team or user; null is WANDB_ENTITY, else your default"
    )
    group: str | None = Field(None, description="null is WANDB_RUN_GROUP, else the suite's name")
    name: str | None = Field(
        None, description="null is WANDB_NAME, else the condition with its seed"
    )
    tags: tuple[str, ...] | None = Field(None, description="null is WANDB_TAGS")

    @field_validator("project", "entity", "group", "name")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value is not None and not 1 <= len(value) <= LONGEST_NAME:
            raise ValueError(f"W&B takes 1 to {LONGEST_NAME} characters, and this has {len(value)}")
        return value

    @field_validator("project")
    @classmethod
    def _project(cls, value: str | None) -> str | None:
        if found := sorted(set(value or "") & set(_NOT_IN_PROJECTS)):
            raise ValueError(
                f"a project of W&B has none of {' '.join(_NOT_IN_PROJECTS)} in its name, and "
                f"{value!r} has {' '.join(found)}"
            )
        return value

    @field_validator("tags")
    @classmethod
    def _tags(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for tag in value or ():
            if not 1 <= len(tag) <= _LONGEST_TAG:
                raise ValueError(
                    f"a tag of W&B has 1 to {_LONGEST_TAG} characters, and {tag[:_LONGEST_TAG]!r} "
                    f"has {len(tag)}"
                )
        return value
