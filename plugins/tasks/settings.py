"""Settings of the built-in tasks. Free of torch, since planning reads them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator
from pydantic.config import JsonDict

from altgrad_core.interfaces.plugin import Settings

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")

ELSEWHERE: JsonDict = {"identity": False}
"""Says where something lies, not what it is; the fingerprint brings the content into the id."""


class CorpusSettings(Settings):
    """What every text-classification data set can be asked for."""

    max_examples: PositiveInt | None = Field(
        None,
        description="at most this many of each split, those with the smallest content hashes",
    )
    top_k: PositiveInt | None = Field(
        None, description="keep only the most frequent labels of the training split"
    )
    min_count: PositiveInt = Field(
        1, description="keep only labels on at least this many training examples"
    )
    vocab_size: PositiveInt = Field(
        8192,
        description="of the tokenizer that is trained if model.pretrained is null; at least 261",
    )


class EurlexDataSettings(CorpusSettings):
    """The ``data`` section for ``eurlex``."""

    path: str | dict[SplitName, str] | None = Field(
        None,
        description="a folder with train, validation and test as .jsonl, .jsonl.gz or .parquet, or "
        "a mapping from split to file; null takes hub",
        json_schema_extra=ELSEWHERE,
    )
    hub: Literal["eurlex57k", "lex_glue"] = Field(
        "eurlex57k", description="published data set that is fetched if path is null"
    )
    text: Literal["title", "text", "both"] = Field(
        "both",
        description="what the model reads; both: the title, then the text unless it opens with it",
    )


class LicenseRulesDataSettings(CorpusSettings):
    """The ``data`` section for ``license_rules``."""

    min_count: PositiveInt = Field(
        40, description="keep only labels on at least this many training examples"
    )


class TransformerSettings(Settings):
    """What the ``model`` sections of encoders and decoders have in common."""

    hidden_dim: PositiveInt = 256
    num_layers: PositiveInt = 4
    num_heads: PositiveInt = 4
    ffn_dim: PositiveInt | None = Field(None, description="null is 4 * hidden_dim")
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    pretrained: str | None = Field(
        None,
        description="hub name or local folder, which then decides type and sizes; null: from scratch",
        json_schema_extra=ELSEWHERE,
    )
    pretrained_revision: str | None = Field(
        None,
        description="commit, branch or tag of a hub name; null: the newest, by its commit",
        json_schema_extra=ELSEWHERE,
    )

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.hidden_dim % self.num_heads:
            raise ValueError(
                f"num_heads ({self.num_heads}) must divide hidden_dim ({self.hidden_dim})"
            )
        return self


class ModelSettings(TransformerSettings):
    """The ``model`` section: a transformer encoder with a masked mean and a linear classifier."""

    type: Literal["bert", "distilbert", "roberta"] = Field(
        "bert", description="architecture of an encoder from scratch"
    )
    max_length: int = Field(128, ge=4, description="tokens per example, special ones included")
    pad_to_multiple_of: PositiveInt = Field(
        1,
        description="training batches are padded to a multiple of this, and no further than max_length: fewer kinds of "
        "batches, of which CUDA graphs can be reused",
        json_schema_extra={"identity": "unless default"},
    )
    pooling: Literal["mean", "cls"] = Field(
        "mean", description="mean over the tokens, padding left out, or the first token"
    )
    classifier_bias: float = Field(
        -3.0, description="initial bias of the classifier: labels are rare, sigmoid(-3) is 0.05"
    )
    loss: Literal["bce", "focal"] = "bce"
    pos_weight: Literal["balanced"] | PositiveFloat | None = Field(
        None, description="weight of positives; balanced is negatives / positives within 1 to 20"
    )
    focal_gamma: NonNegativeFloat = Field(2.0, description="focusing exponent of the focal loss")


class EurlexSettings(Settings):
    """Settings of the task ``eurlex``."""

    data: EurlexDataSettings = EurlexDataSettings()
    model: ModelSettings = ModelSettings()


class LicenseRulesSettings(Settings):
    """Settings of the task ``license_rules``."""

    data: LicenseRulesDataSettings = LicenseRulesDataSettings()
    model: ModelSettings = ModelSettings()
