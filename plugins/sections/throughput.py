"""Which formats are fastest: in simulation and, apart from that, with native products. Which is which is said first."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

import altgrad_core.report.charts as charts
from altgrad_core.analysis.words import Spread, counted, significant
from altgrad_core.interfaces.blocks import Block, Paragraph
from altgrad_core.interfaces.section import Findings
from altgrad_plugins.sections.shared import (
    SPEED,
    TOKENS,
    BuiltIn,
    by_condition,
    executions,
    over_seeds,
    side_names,
)

_MOST_BARS = 40
TOLD = {
    "simulated": (
        "Every format here is simulated: tensors are rounded to the format's values and multiplied in "
        "float32 or bfloat16. Samples/s measure that simulation, not an 8-bit kernel, and do not tell "
        "which format hardware would run fastest."
    ),
    "native": (
        "The products of quantised layers are native: 8-bit codes are multiplied by the hardware's (on a CPU, "
        "torch's) own operators. Samples/s include rounding to codes, and all that is not such a product."
    ),
}
"""What is said of the speeds of each kind of execution, which are never compared with those of the other."""
_SUFFIX = {"simulated": "", "native": ", executed natively"}


class Throughput(BuiltIn):
    """Samples per second of every condition (the numbers are in the main table), and the range of tokens."""

    title = "Throughput: which formats are fastest?"

    def build(self, found: Findings) -> Sequence[Block]:
        speeds = {c: s for c, s in by_condition(found, SPEED).items() if s.n}
        if not speeds:
            return [
                Paragraph("No run has measured its throughput; the monitor is called throughput.")
            ]
        executed = executions(found)
        blocks: list[Block] = []
        for kind in TOLD:
            mine = {c: s for c, s in speeds.items() if executed.get(c, "simulated") == kind}
            if mine:
                blocks += self._of(kind, mine, found, alone=len(mine) == len(speeds))
        return blocks

    def _of(
        self, kind: str, speeds: dict[str, Spread], found: Findings, *, alone: bool
    ) -> list[Block]:
        """What is said of the conditions that were executed in one way; ``alone``: of all there are."""
        which = "" if alone else f"{kind.capitalize()} conditions, {len(speeds)} in all. "
        text = f"{which}{TOLD[kind]} {_answer(speeds, kind)}"
        tokens = by_condition(found, TOKENS)
        if several := [tokens[c].mean for c in speeds if c in tokens and tokens[c].n]:
            text += f" In tokens: {significant(min(several))} to {significant(max(several))}/s."
        return [Paragraph(text), _bars(found, speeds, kind)]


def _answer(speeds: dict[str, Spread], kind: str) -> str:
    order = sorted(speeds.items(), key=lambda row: -row[1].mean)
    (best, fast), (worst, slow) = order[0], order[-1]
    if len(order) == 1:
        return f"{best} trains at {significant(fast.mean)} samples/s."
    what = "simulation" if kind == "simulated" else "condition"
    text = (
        f"The fastest {what} is {best} with {significant(fast.mean)} samples/s, the slowest "
        f"{worst} with {significant(slow.mean)} ({significant(slow.mean / fast.mean)}×)."
    )
    if fast.n < 2:
        return f"{text} There is one run of each, so how much runs scatter is not known."
    near = sum(s.mean + (s.std if s.n > 1 else 0) >= fast.mean - fast.std for _, s in order) - 1
    return f"{text} Within one standard deviation of the fastest: {counted(near, 'other')}."


def _bars(found: Findings, speeds: dict[str, Spread], kind: str) -> Block:
    side = side_names(found)
    rows = [(c, s.mean, significant(s.mean), side[c]) for c, s in speeds.items()][:_MOST_BARS]
    frame = pd.DataFrame(rows, columns=["label", "value", "note", "side"])
    left = len(speeds) - len(rows)
    more = f"; {left} more are in the main table" if left else ""
    caption = f"Samples per second of training{_SUFFIX[kind]}, {over_seeds(found)}{more}."
    name = "throughput" if kind == "simulated" else "throughput_native"
    return charts.bars(name, caption, frame, title="samples/s")
