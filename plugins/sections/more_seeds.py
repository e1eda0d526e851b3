"""What to type where a suite has too few seeds for anything to be tested."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from itertools import count, islice

import pandas as pd

from altgrad_core.analysis.words import MIN_SEEDS, counted
from altgrad_core.interfaces.blocks import Block, Code, Paragraph
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.shared import planned


def more_seeds(found: Findings) -> list[Block]:
    """The command that adds the seeds that are missing; nothing where there are enough.

    It is the one that ran the suite, with other seeds; a suite that was run from Python has none.
    """
    asked = pd.concat([planned(one) for one in (found, *found.beside)])
    seeds = sorted({int(seed) for seed in asked.loc[asked["stage"] == "final", "seed"]})
    if not 0 < len(seeds) < MIN_SEEDS:
        return []
    text = f"With {counted(len(seeds), 'seed')} nothing can be tested: that takes at least {MIN_SEEDS}."
    if not found.commands:
        return [Paragraph(f"{text} Run the suite again with more seeds.")]
    fewer = "only one seed was" if len(seeds) == 1 else "fewer seeds were"
    return [
        Paragraph(f"{text} This adds them, and runs only what is missing:"),
        Code(with_seeds(found.commands[0], seeds)),
        Paragraph(
            f"Its answer is labelled exploratory, since {fewer} declared before the first run. With "
            "`--runs` and another folder the suite starts afresh, and declares all of them."
        ),
    ]


def with_seeds(command: str, seeds: Sequence[int]) -> str:
    """The command line with enough seeds: those there are, then the smallest others.

    >>> with_seeds("altgrad-bench run smoke --set seeds=[7]", [7])
    "altgrad-bench run smoke --set 'seeds=[7,0,1,2,3]'"
    """
    others = islice((n for n in count() if n not in seeds), MIN_SEEDS - len(seeds))
    words = iter(shlex.split(command))
    kept: list[str] = []
    for word in words:
        if word == "--set":
            given = next(words, "")
            kept += [] if _names_seeds(given) else [word, given]
        elif not _names_seeds(word.removeprefix("--set=")):
            kept.append(word)
    every = ",".join(map(str, [*seeds, *others]))
    return shlex.join([*kept, "--set", f"seeds=[{every}]"])


def _names_seeds(setting: str) -> bool:
    return setting.partition("=")[0].strip() == "seeds"
