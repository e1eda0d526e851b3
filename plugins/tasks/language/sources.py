"""Which texts: those of the other tasks, or of a folder. Free of torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from altgrad_plugins.tasks.documents import Corpus
from altgrad_plugins.tasks.eurlex import EurlexSource
from altgrad_plugins.tasks.language.files import FilesSource
from altgrad_plugins.tasks.language.settings import LanguageDataSettings, LanguageSettings
from altgrad_plugins.tasks.license_rules import LicenseRulesSource
from altgrad_plugins.tasks.pretrained import pretrained_fingerprint
from altgrad_plugins.tasks.settings import EurlexDataSettings, LicenseRulesDataSettings


class TextSource(Protocol):
    """Where documents come from; their labels are not looked at."""

    @property
    def name(self) -> str:
        """What the source is called."""

    def fingerprint(self) -> str:
        """Identity of the raw data."""

    def load(self, cache_dir: Path, log: Callable[[str], None]) -> Corpus:
        """Read the documents. Raises ``UserError``."""


def text_source(settings: LanguageDataSettings) -> TextSource:
    """The source that the settings name."""
    if settings.chosen_source == "license_rules":
        return LicenseRulesSource(LicenseRulesDataSettings())
    if settings.chosen_source == "eurlex":
        chosen = settings.model_dump(include={"path", "hub", "text"}, exclude_none=True)
        return EurlexSource(EurlexDataSettings.model_validate(chosen))
    return FilesSource(str(settings.path))


def fingerprint(settings: LanguageSettings) -> dict[str, str]:
    """Identity of the data, and of the pretrained model if one is named."""
    return {
        "data": text_source(settings.data).fingerprint(),
        **pretrained_fingerprint(settings.model),
    }
