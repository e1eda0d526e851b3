"""Which layers of the models of ``transformers`` are attention, and which feed-forward. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping

LAYER_GROUPS: Mapping[str, tuple[str, ...]] = {
    "attention": ("*.attention", "*.attn", "*.self_attn", "*.self_attention"),
    "mlp": (
        *("*.mlp", "*.ffn", "*.ffn_output", "*.feed_forward", "*.intermediate"),
        *("*.layer.[0-9].output", "*.layer.[0-9][0-9].output"),  # BERT's, outside of its attention
    ),
}
"""Group -> patterns of the modules around its layers (``Task.layer_groups``)."""
