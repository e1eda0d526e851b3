"""The data of the task ``eurlex``: EU law with EuroVoc concepts, from files or from the hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.documents import Corpus
from altgrad_plugins.tasks.eurlex_files import files_fingerprint, find_files, read_split
from altgrad_plugins.tasks.eurlex_hub import HUB, read_hub
from altgrad_plugins.tasks.pretrained import pretrained_fingerprint
from altgrad_plugins.tasks.settings import SPLITS, EurlexDataSettings, EurlexSettings


@dataclass(frozen=True)
class EurlexSource:
    """Local files where ``path`` says so, otherwise the published data set ``hub``."""

    settings: EurlexDataSettings
    name: str = "eurlex"

    def fingerprint(self) -> str:
        """Hash of the local files, or the pinned revision."""
        if self.settings.path is None:
            return HUB[self.settings.hub].fingerprint()
        return files_fingerprint(find_files(self.settings.path))

    def load(self, cache_dir: Path, log: Callable[[str], None]) -> Corpus:
        """Read every split."""
        choice = self.settings.text
        facts: dict[str, Any]
        if self.settings.path is None:
            files = HUB[self.settings.hub]
            log(f"fetching {files.repository} at {files.revision[:12]}")
            splits = read_hub(self.settings.hub, choice)
            facts = {"source": files.fingerprint(), "licence": files.licence}
        else:
            paths = find_files(self.settings.path)
            log(f"reading {', '.join(str(paths[split]) for split in SPLITS)}")
            splits = {split: read_split(paths[split], split, choice) for split in SPLITS}
            facts = {"source": {split: paths[split].name for split in SPLITS}}
        if not any(document.text for document in splits["train"]):
            raise UserError(
                f"every training example is empty with data.text={choice!r}; choose another of "
                "title, text, both."
            )
        return Corpus(splits, facts)


def fingerprint(settings: EurlexSettings) -> dict[str, str]:
    """Identity of the data, and of the pretrained model if one is named. Free of torch."""
    return {
        "data": EurlexSource(settings.data).fingerprint(),
        **pretrained_fingerprint(settings.model),
    }
