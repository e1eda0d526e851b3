"""The sections of the report that come with altgrad-bench, in their order; see ``docs/report.md``."""

from __future__ import annotations

from collections.abc import Iterable

from altgrad_core.interfaces.plugin import Offer, hookimpl

_HERE = "altgrad_plugins.sections"


@hookimpl
def altgrad_sections() -> Iterable[Offer]:
    """Each answers one question; ``label`` is its number, ``order`` its place."""
    return (
        _offer(
            "benefit", 10, "q3", "what the treatment gains in each format, and what needs the grid"
        ),
        _offer("controls", 20, "", "what ought to make no difference: A/A pairs, placebos"),
        _offer("results", 30, "q2", "every condition with its scores; which score best"),
        _offer("rates", 40, "", "how learning rates were chosen"),
        _offer("throughput", 50, "q1", "which formats are fastest to simulate"),
        _offer("ranks", 60, "q4", "whether weight matrices keep their rank"),
        _offer("failures", 70, "q5", "where each format fails, when, and in which layers"),
        _offer("layers", 80, "q6", "which format suits which type of layer"),
        _offer("properties", 90, "q7", "which property of the formats the benefit goes along with"),
        _offer("reference", 100, "q8", "every condition against the reference, and the curves"),
        _offer("samples", 105, "", "what models of language learned, in their own words"),
        _offer("seeds", 110, "", "every difference seed by seed, with the runs it comes from"),
        _offer("data", 120, "", "what the runs were trained on", module="record"),
        _offer("provenance", 130, "", "where each run comes from", module="record"),
        _offer("repeat", 140, "", "the command that repeats it all", module="record"),
    )


def _offer(name: str, order: int, number: str, summary: str, module: str = "") -> Offer:
    target = f"{_HERE}.{module or name}:{name.capitalize()}"
    return Offer(name=name, summary=summary, target=target, label=number, order=order)
