"""Settings of the task ``causal_lm``. Free of torch, since planning reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from altgrad_core.interfaces.plugin import Settings
from altgrad_plugins.tasks.settings import ELSEWHERE, SplitName, TransformerSettings

SourceName = Literal["license_rules", "eurlex", "files"]


class LanguageDataSettings(Settings):
    """The ``data`` section for ``causal_lm``."""

    source: SourceName | None = Field(
        None,
        description="license_rules: embedded licence texts; eurlex: EU acts, of path or of hub; files: "
        "the .txt and .jsonl files in the folder path; null: files with a path, eurlex with a hub, "
        "else license_rules",
    )
    path: str | dict[SplitName, str] | None = Field(
        None,
        description="files: a folder; eurlex: a folder or a mapping from split to file, null takes hub",
        json_schema_extra=ELSEWHERE,
    )
    hub: Literal["eurlex57k", "lex_glue"] | None = Field(
        None,
        description="eurlex: the published data set that is fetched if path is null; null: eurlex57k",
    )
    text: Literal["title", "text", "both"] = Field(
        "both", description="eurlex: what is read of an act; both: the title, then the text"
    )
    max_examples: PositiveInt | None = Field(
        None,
        description="at most this many documents of each split, those with the smallest hashes",
    )
    max_eval_blocks: PositiveInt | None = Field(
        None,
        description="evaluate on at most this many blocks of each split, the first in the order of "
        "the documents' hashes",
    )
    tokenizer: Literal["bpe", "bytes"] = Field(
        "bpe",
        description="of a model from scratch: byte-level BPE trained on the training split, or the "
        "bytes of the text",
    )
    vocab_size: PositiveInt = Field(8192, description="of the BPE; at least 257")

    @model_validator(mode="after")
    def _a_path_where_there_must_be_one(self) -> LanguageDataSettings:
        source = self.chosen_source
        if source == "files" and not isinstance(self.path, str):
            raise ValueError("source: files needs path, a folder with .txt or .jsonl files")
        if source == "license_rules" and self.path is not None:
            raise ValueError(
                "source: license_rules reads no path; with one, source is files or eurlex"
            )
        if source != "eurlex" and (self.hub is not None or self.text != "both"):
            raise ValueError(f"hub and text are for source: eurlex, and source is {source}")
        if self.tokenizer == "bpe" and self.vocab_size < 257:
            raise ValueError(
                f"vocab_size ({self.vocab_size}) must be at least 257: 256 bytes and the end"
            )
        return self

    @property
    def chosen_source(self) -> SourceName:
        """The source, where none is named as well."""
        without: SourceName = "license_rules" if self.hub is None else "eurlex"
        return self.source or (without if self.path is None else "files")


class DecoderSettings(TransformerSettings):
    """The ``model`` section: a decoder in the manner of GPT-2, or a pretrained one."""

    type: Literal["decoder"] = Field("decoder", description="architecture from scratch: GPT-2's")
    max_length: int = Field(128, ge=4, description="context: tokens of a block")
    tied_head: bool = Field(True, description="the head's weight is the token embedding's")


class LanguageSettings(Settings):
    """Settings of the task ``causal_lm``."""

    data: LanguageDataSettings = LanguageDataSettings()
    model: DecoderSettings = DecoderSettings()

    @model_validator(mode="after")
    def _one_tokenizer(self) -> LanguageSettings:
        if self.model.pretrained is not None and self.data.tokenizer == "bytes":
            raise ValueError(
                "data.tokenizer: bytes is for models from scratch; model.pretrained brings its own"
            )
        return self
