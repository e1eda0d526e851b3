"""``altgrad-bench plan SUITE --export DIR``: each condition as a suite file that runs alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from altgrad_core._files import write_text
from altgrad_core.errors import UserError
from altgrad_core.planning.plan import Cell, Plan
from altgrad_core.planning.sections import as_sections
from altgrad_core.planning.spec_file import dump_yaml
from altgrad_core.planning.tune import AUTO


def export_plan(plan: Plan, folder: Path | str) -> list[Path]:
    """Write ``<label>.yaml`` for each condition that can run, with all its seeds; return the paths.

    Every default is written out, and the runs have the ids that they have in the plan. Raises
    ``UserError``, before anything is written, if that would replace a file with other contents.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder to export to.")
    texts = {folder / f"{label}.yaml": _text(plan, cells) for label, cells in _conditions(plan)}
    other = [
        path
        for path, text in texts.items()
        if path.exists() and path.read_text(encoding="utf-8") != text
    ]
    if other:
        names = ", ".join(path.name for path in other)
        raise UserError(
            f"{folder} already holds other files of these names, and nothing was written: {names}. "
            "Name another folder, or move them away."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)


def _conditions(plan: Plan) -> list[tuple[str, list[Cell]]]:
    found: dict[str, list[Cell]] = {}
    for cell in plan.cells:
        if cell.spec or cell.template:
            found.setdefault(cell.label, []).append(cell)
    return list(found.items())


def _text(plan: Plan, cells: Sequence[Cell]) -> str:
    label = cells[0].label
    ids = ", ".join(f"{cell.spec.id} (seed {cell.seed})" for cell in cells if cell.spec)
    header = (
        f"# {label} of the suite {plan.suite.name}, every default written out.\n"
        f"# Run it alone:  altgrad-bench run {label}.yaml\n"
    )
    header += f"# Its runs, as in the suite:  {ids}\n\n" if ids else "\n"
    head = {"name": f"{plan.suite.name}-{label}", "description": plan.suite.description}
    body: list[dict[str, Any]] = [head, {"seeds": [cell.seed for cell in cells]}]
    body += [{section: values} for section, values in _sections(cells[0]).items() if values]
    if cells[0].waits:
        body.append({"tune": plan.suite.tune.model_dump(mode="json")})
    return header + "\n".join(map(dump_yaml, body))


def _sections(cell: Cell) -> dict[str, dict[str, Any]]:
    spec = cell.spec or cell.template
    assert spec is not None
    sections = as_sections(spec)
    if cell.waits:
        sections["training"]["learning_rate"] = AUTO
    return sections
