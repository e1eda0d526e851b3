"""EU law from the Hugging Face hub, at pinned revisions.

``NLP-AUEB/eurlex`` itself is a script data set, which ``datasets`` >= 4 does not run; the same rows
are published as parquet files, and those are read here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.documents import Document
from altgrad_plugins.tasks.hub_errors import why
from altgrad_plugins.tasks.rows import LABELS, TextChoice, parse_row
from altgrad_plugins.tasks.settings import SPLITS, SplitName


@dataclass(frozen=True)
class HubFiles:
    """Parquet files of one data set at one commit."""

    repository: str
    revision: str
    pattern: str
    """Path inside the repository, with ``{split}``."""
    licence: str

    def urls(self) -> dict[str, str]:
        """Split -> ``hf://`` address."""
        base = f"hf://datasets/{self.repository}@{self.revision}"
        return {split: f"{base}/{self.pattern.format(split=split)}" for split in SPLITS}

    def fingerprint(self) -> str:
        """Which files at which commit."""
        return f"hub:{self.repository}@{self.revision}/{self.pattern}"


HubName = Literal["eurlex57k", "lex_glue"]

HUB: dict[HubName, HubFiles] = {
    "eurlex57k": HubFiles(
        "jonathanli/eurlex",
        "04b1573bfbb926f9c5c9e2c149468c65ab6e604f",
        "eurlex57k/eurlex-{split}.parquet",
        "CC BY-SA 4.0 (Chalkidis et al. 2019); texts (c) European Union",
    ),
    "lex_glue": HubFiles(
        "coastalcph/lex_glue",
        "c23fdff1a6bf74e0e1a71cb86f1e781d37da888c",
        "eurlex/{split}-00000-of-00001.parquet",
        "CC BY 4.0 (Chalkidis et al. 2022); texts (c) European Union",
    ),
}


def read_hub(name: HubName, choice: TextChoice) -> dict[SplitName, list[Document]]:
    """Every split of a published data set.

    Raises :class:`UserError`, with the reason, where it cannot be had; no other data is taken instead.
    """
    import datasets

    files = HUB[name]
    try:
        loaded = datasets.load_dataset("parquet", data_files=files.urls())
    except Exception as error:  # the errors of several HTTP libraries come through here
        raise UserError(
            f"the data set {files.repository} cannot be fetched from the Hugging Face hub: "
            f"{why(error)}. Give local files with data.path=FOLDER, or train on the embedded data "
            "with data.dataset=license_rules."
        ) from error
    return {split: list(_documents(loaded[split], split, name, choice)) for split in SPLITS}


def _documents(
    table: Any, split: SplitName, name: HubName, choice: TextChoice
) -> Iterator[Document]:
    names = _class_names(table) if name == "lex_glue" else None
    where = f"{HUB[name].repository} ({split})"
    for number, row in enumerate(table, start=1):
        yield parse_row(
            row if names is None else _from_lex_glue(row, names), where, number, split, choice
        )


def _class_names(table: Any) -> list[str]:
    """EuroVoc ids of LexGLUE's class numbers, if the files carry them."""
    feature = table.features["labels"].feature
    return list(getattr(feature, "names", ()))


def _from_lex_glue(row: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    labels = [names[label] if names else str(label) for label in row["labels"]]
    return {"text": row["text"], LABELS: labels}
