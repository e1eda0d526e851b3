"""How products were computed, simulated or native: numbers of the two are never taken for one kind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pandas as pd

from altgrad_core.analysis.design import Group

NATIVE, SIMULATED = "native", "simulated"
NAMED = {NATIVE: "executed natively", SIMULATED: "executed in simulation"}


def execution_of(runs: pd.DataFrame) -> str:
    """``native``, ``simulated`` (what runs of versions before that are), or both; empty where no settings are known."""
    known = [json.loads(text)["quantization"] for text in dict.fromkeys(runs["settings"]) if text]
    return " and ".join(sorted({str(one.get("execution", SIMULATED)) for one in known}))


def untold(groups: Sequence[Group]) -> Mapping[str, str]:
    """Group -> how it was executed, where groups differ in that and it is no axis that tells them apart."""
    found = {group.label: execution_of(pd.concat([group.left, group.right])) for group in groups}
    known = {label: word for label, word in found.items() if word}
    told = all(known.get(group.label, group.place) in group.place for group in groups)
    if len(set(known.values())) < 2 or told:
        return {}
    return known
