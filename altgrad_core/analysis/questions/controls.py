"""Controls: what ought to make no difference, and how much of one it makes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from altgrad_core.analysis.comparison import ALPHA, censoring
from altgrad_core.analysis.contrast import Delta, between
from altgrad_core.analysis.document import Block, Bullets, Cell, Paragraph, Section, Table, cells
from altgrad_core.analysis.figures import forest_figure
from altgrad_core.analysis.findings import Findings
from altgrad_core.analysis.groups import Group
from altgrad_core.analysis.limits import placebos_of
from altgrad_core.analysis.numbers import NONE, counted, listed, score, spread
from altgrad_core.analysis.paired import PairedSummary, paired_summary
from altgrad_core.analysis.plots import Interval
from altgrad_core.analysis.tables import number_table
from altgrad_core.analysis.twins import Twins
from altgrad_core.analysis.words import LEVEL, delta_names, group_names, interval_text, metric_name


def section(found: Findings, folder: Path) -> Section:
    """A/A pairs, the identity on uniform grids, and placebos."""
    blocks: list[Block] = [Paragraph(answer(found))]
    if found.twins:
        blocks.append(_twin_table(found))
    if said := [*_identities(found), *_placebo_words(found)]:
        blocks.append(Bullets(tuple(said)))
    if found.placebos:
        blocks.append(_placebo_table(found))
    rows = [*_twin_rows(found), *_placebo_rows(found)]
    caption = "What ought to be 0 (A/A pairs), and what placebos gain over the baseline."
    label = f"Δ {metric_name(found.metric)}"
    if any(row.centre for _, row in rows if not math.isnan(row.centre)):
        figure = forest_figure("controls", rows, caption, label, margin=found.margin)
        blocks.extend([figure] if figure is not None else [])
    return Section("Controls", blocks)


def answer(found: Findings) -> str:
    """Whether the instrument can be trusted, as far as its A/A pairs tell."""
    twins = found.twins
    if not twins:
        return (
            "No A/A control: the suite has no two formats with the same grid (such as e0m7 and e1m6) "
            "with results that are equal in all else, so nothing here shows how far apart two runs "
            "are that ought to be equal."
        )
    pairs = listed(dict.fromkeys(f"{t.formats[0]} and {t.formats[1]}" for t in twins))
    head = f"{pairs} are the same grid up to a power of two, so their runs form A/A pairs: "
    compared = counted(len(twins), "comparison")
    apart = max(abs(t.difference) for t in twins)
    if found.broken:
        return (
            f"The instrument fails its control. {head}{compared}, {len(found.broken)} of which differ "
            f"although all scales are powers of two, by up to {score(apart)}."
        )
    if apart == 0:
        return (
            f"The instrument passes its control. {head}{compared}, all exactly equal. The arithmetic "
            "adds no noise; how much a seed changes is another matter."
        )
    return (
        f"{head}{compared}, at most {score(apart)} apart ({_why(twins)}). That is the noise floor: a "
        "difference of that size elsewhere may be noise as well."
    )


def _why(twins: Iterable[Twins]) -> str:
    if any(t.promised is None for t in twins if not t.equal):
        return "whether their scales are powers of two is not known"
    return (
        "exact equality is not promised: scales are no powers of two, a setting is in the grid's own "
        "units, or the runs used different machines"
    )


def _by_setting(found: Findings) -> dict[tuple[tuple[str, str], str], list[Twins]]:
    groups: dict[tuple[tuple[str, str], str], list[Twins]] = {}
    for twins in found.twins:
        groups.setdefault((twins.formats, twins.setting), []).append(twins)
    return groups


def _twin_table(found: Findings) -> Table:
    rows = []
    for (formats, setting), twins in _by_setting(found).items():
        left, right = (spread(t.scores[side] for t in twins).mean for side in (0, 1))
        differences = ", ".join(score(t.difference, signed=True) for t in twins)
        equal = all(t.equal for t in twins)
        rows.append(
            (
                *cells(f"{formats[0]}, {formats[1]}", setting, score(left), score(right)),
                Cell(differences),
                Cell(
                    "yes" if equal else "no",
                    tone="bad" if any(t.broken for t in twins) else "plain",
                ),
            )
        )
    head = number_table(
        ("Formats", "Setting"), ("First", "Second", "Differences by seed", "Exactly equal")
    )
    caption = f"A/A pairs, {metric_name(found.metric)}: second − first, in the order of the seeds."
    return Table(head, tuple(rows), caption)


def _twin_rows(found: Findings) -> list[tuple[str, Interval]]:
    rows = []
    for (formats, setting), twins in _by_setting(found).items():
        values = tuple(t.difference for t in twins)
        mean = spread(values).mean
        label = f"{formats[1]} − {formats[0]}, {setting}"
        row = Interval(
            label, score(mean, signed=True), mean, values=values if len(values) > 1 else ()
        )
        rows.append(("A/A", row))
    return rows


def _identities(found: Findings) -> list[str]:
    """On a uniform grid a normalised stiffness is 1 for every weight, so both sides are one."""
    known = [
        one
        for one in found.comparisons
        if one.delta.pairs and _uniform(found, one.delta) and not one.censored
    ]
    if not known:
        return []
    groups = group_names(known, found.comparisons)
    largest = max(abs(pair.delta) for one in known for pair in one.delta.pairs)
    text = (
        f"On a uniform grid ({groups}) the stiffness is the same for every weight of a tensor. "
        "Normalised, it is 1, and a manifold update is the standard one bit for bit at equal "
        "learning rates: "
    )
    if largest == 0:
        return [f"{text}there the two sides agree exactly, as they must. It is no finding."]
    return [f"{text}there the two sides differ by up to {score(largest)}."]


def _uniform(found: Findings, delta: Delta) -> bool:
    numbers = found.formats.get(delta.place.format)
    return numbers is not None and bool(numbers.uniform)


def _summary(found: Findings, delta: Delta) -> PairedSummary:
    names = (*delta.place.baseline, *delta.place.treatment)
    censored = censoring(names, found.tuning)
    return paired_summary(() if censored else delta.gains, confidence=1 - ALPHA)


def _text(summary: PairedSummary) -> str:
    if not summary.n:
        return NONE
    text = score(summary.mean, signed=True)
    if summary.degenerate:
        return text
    return f"{text} ({interval_text(summary.low, summary.high)})"


def _ahead(found: Findings, placebo: Delta) -> PairedSummary:
    """How much more the treatment gains than its placebo."""
    for one in found.comparisons:
        if placebo in placebos_of(found, one):
            names = (*one.delta.place.treatment, *placebo.place.treatment)
            place = Group("", baseline=names)
            return _summary(found, between(one.delta, placebo, place))
    return paired_summary(())


def _placebo_table(found: Findings) -> Table:
    rows = tuple(
        cells(
            placebo.group,
            placebo.place.placebo,
            _text(_summary(found, placebo)),
            _text(_ahead(found, placebo)),
            str(len(placebo.pairs)),
        )
        for placebo in found.placebos
    )
    head = number_table(
        ("Setting", "Placebo"), ("Placebo over baseline", "Treatment over placebo", "Pairs")
    )
    caption = (
        f"Gain in {metric_name(found.metric)} with its {LEVEL} t interval, not adjusted; positive is "
        "better. permuted: each weight has the stiffness of another one of its tensor. constant: "
        "all have the root mean square."
    )
    return Table(head, rows, caption)


def _placebo_rows(found: Findings) -> list[tuple[str, Interval]]:
    rows = []
    for placebo in found.placebos:
        summary = _summary(found, placebo)
        values = placebo.gains if summary.n > 1 else ()
        interval = Interval(
            placebo.group,
            score(summary.mean, signed=True),
            summary.mean,
            summary.low,
            summary.high,
            values,
            bool(placebo.diverged),
        )
        rows.append(("placebos", interval))
    return rows


def _placebo_words(found: Findings) -> list[str]:
    said = []
    for kind in dict.fromkeys(delta.place.placebo for delta in found.placebos):
        ahead = [(p, _ahead(found, p)) for p in found.placebos if p.place.placebo == kind]
        tested = [(p, s) for p, s in ahead if not s.degenerate]
        better = [p for p, s in tested if s.low > 0]
        text = f"The {kind} placebo: of {counted(len(tested), 'setting')} with a spread, "
        if not tested:
            said.append(f"The {kind} placebo was run, with too few seeds to compare it.")
        elif better:
            said.append(
                f"{text}the treatment gains more than it in {delta_names(better, found.placebos)} "
                "(intervals not adjusted)."
            )
        else:
            said.append(f"{text}none shows the treatment to gain more than it.")
    return said
