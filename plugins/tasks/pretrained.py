"""What ``model.pretrained`` names: a folder (checked, hashed) or a name on the hub. No torch."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Protocol

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.digest import file_digest
from altgrad_plugins.tasks.hub_errors import why

CONFIG = ("config.json",)
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZER = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
_CONTENT = (".json", ".txt", ".model", ".safetensors", ".bin")


class Named(Protocol):
    """What of a ``model`` section names a pretrained model."""

    @property
    def pretrained(self) -> str | None:
        """A hub name or a folder; None: from scratch."""

    @property
    def pretrained_revision(self) -> str | None:
        """The commit of a hub name."""


def local_folder(pretrained: str) -> Path | None:
    """The folder that ``pretrained`` names, complete, or ``None`` if it is a name on the hub.

    Raises :class:`UserError` if it can only be a folder and there is none, or if files are missing.
    """
    folder = Path(pretrained).expanduser()
    if not folder.is_dir():
        if folder.exists() or pretrained.startswith((".", "/", "~")) or pretrained.count("/") > 1:
            raise UserError(
                f"model.pretrained: there is no folder {folder}; it should be a folder with an "
                "model and its tokenizer, or a name on the Hugging Face hub such as "
                "distilbert/distilbert-base-uncased."
            )
        return None
    for what, names in (("configuration", CONFIG), ("tokenizer", TOKENIZER), ("weights", WEIGHTS)):
        if not any((folder / name).is_file() for name in names):
            raise UserError(
                f"model.pretrained: the folder {folder} has no {what}: looked for "
                f"{', '.join(names)}. Save model and tokenizer there with save_pretrained(), or "
                "set model.pretrained=null to train from scratch."
            )
    return folder


def pretrained_fingerprint(settings: Named) -> dict[str, str]:
    """``{"model": ...}``: a hash of the folder's files, or the hub name with its commit.

    A name whose commit cannot be found (no network) stands with the revision that was given, if any.
    """
    if settings.pretrained is None:
        return {}
    folder = local_folder(settings.pretrained)
    if folder is None:
        commit = hub_commit(settings.pretrained, settings.pretrained_revision)
        revision = commit or settings.pretrained_revision
        return {"model": f"hub:{settings.pretrained}" + (f"@{revision}" if revision else "")}
    total = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in _CONTENT:
            total.update(file.name.encode() + b"\0" + file_digest(file))
    return {"model": f"sha256:{total.hexdigest()}"}


def hub_commit(name: str, revision: str | None) -> str | None:
    """The commit of a branch, a tag or the newest state of a model on the hub; None if it cannot be found.

    What has been fetched once stays: the hub is asked only about what is not in its cache.
    """
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, CONFIG[0], revision=revision)
        file = (
            found if isinstance(found, str) else hf_hub_download(name, CONFIG[0], revision=revision)
        )
    except Exception:  # whoever loads the model meets the reason again, and says it
        return None
    return Path(file).parent.name  # …/snapshots/COMMIT/config.json


def from_pretrained(
    what: str, factory: Any, pretrained: str, revision: str | None, **options: Any
) -> Any:
    """``factory.from_pretrained(...)`` with every failure as a :class:`UserError`.

    Code that comes with a model (``auto_map``) is never run, and never asked about at a prompt.
    """
    options["trust_remote_code"] = False
    folder = local_folder(pretrained)
    try:
        if folder is not None:
            return factory.from_pretrained(str(folder), local_files_only=True, **options)
        commit = hub_commit(pretrained, revision) or revision
        return factory.from_pretrained(pretrained, revision=commit, **options)
    except Exception as error:  # the errors of several libraries and file formats come through here
        if folder is not None:
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            raise UserError(
                f"model.pretrained: the {what} in {folder} cannot be loaded ({reason})."
            ) from error
        raise UserError(
            f"model.pretrained: the {what} of {pretrained!r} cannot be fetched from the Hugging "
            f"Face hub, and there is no folder of that name: {why(error)}. Give the path of a local "
            "folder, or set model.pretrained=null to train from scratch."
        ) from error
