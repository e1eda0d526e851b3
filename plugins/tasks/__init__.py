"""Built-in tasks: the offers. Free of torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Need, Offer, hookimpl
from altgrad_plugins.tasks.declared import METRICS
from altgrad_plugins.tasks.language.declared import METRICS as LANGUAGE_METRICS
from altgrad_plugins.tasks.language.settings import LanguageSettings
from altgrad_plugins.tasks.settings import EurlexSettings, LicenseRulesSettings

_PACKAGE = "altgrad_plugins.tasks"
_TINY = {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "max_length": 16}
_ENCODERS = (
    "transformers.models.auto.modeling_auto",
    "transformers.models.bert.modeling_bert",
    "transformers.models.distilbert.modeling_distilbert",
    "transformers.models.roberta.modeling_roberta",
)


@hookimpl
def altgrad_tasks() -> list[Offer]:
    """Multi-label text classification on two sources, and language modelling on any."""
    return [
        Offer(
            name="eurlex",
            summary="EU law with EuroVoc concepts, from local files or from the hub",
            target=f"{_PACKAGE}.classification:eurlex",
            settings=EurlexSettings,
            fingerprint=f"{_PACKAGE}.eurlex:fingerprint",
            imports=_ENCODERS,
            metrics=METRICS,
            resample=f"{_PACKAGE}.resample:weighted_scores",
            example=f"{_PACKAGE}.example:acts",
            details={
                "files": "{train,validation,test}.{jsonl,jsonl.gz,parquet}",
                "fields": "celex_id, title, text, eurovoc_concepts",
            },
        ),
        Offer(
            name="license_rules",
            summary="licence texts and notices of the package licensedcode-data: no network",
            target=f"{_PACKAGE}.classification:license_rules",
            settings=LicenseRulesSettings,
            needs=(Need("module", "licensedcode", "pip install 'altgrad-bench[demo]'"),),
            fingerprint=f"{_PACKAGE}.license_rules:fingerprint",
            imports=_ENCODERS,
            metrics=METRICS,
            resample=f"{_PACKAGE}.resample:weighted_scores",
            example={
                "data": {"max_examples": 64, "min_count": 4, "vocab_size": 300},
                "model": _TINY,
            },
            details={"licence": "CC-BY-4.0, nexB Inc. and others", "documents": "about 13,400"},
        ),
        Offer(
            name="causal_lm",
            summary="next-token prediction on licence texts, EU law or any folder of texts",
            target=f"{_PACKAGE}.language.task:causal_lm",
            settings=LanguageSettings,
            fingerprint=f"{_PACKAGE}.language.sources:fingerprint",
            imports=(
                "transformers.models.auto.modeling_auto",
                "transformers.models.gpt2.modeling_gpt2",
            ),
            metrics=LANGUAGE_METRICS,
            resample=f"{_PACKAGE}.language.resample:weighted_scores",
            example=f"{_PACKAGE}.example:texts",
            details={"files": "*.txt, *.jsonl, *.jsonl.gz", "fields of .jsonl": "text"},
        ),
    ]
