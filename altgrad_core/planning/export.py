"""``altgrad-bench plan SUITE --export DIR``: each condition as a suite file that runs alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from altgrad_core._files import write_text
from altgrad_core.errors import UserError
from altgrad_core.planning.plan import Plan
from altgrad_core.planning.sections import as_sections
from altgrad_core.planning.spec import RunSpec
from altgrad_core.planning.spec_file import dump_yaml


def export_plan(plan: Plan, folder: Path | str) -> list[Path]:
    """Write ``<label>.yaml`` for each condition that can run, with all its seeds; return the paths.

    Every default is written out, and the runs have the ids that they have in the plan. Raises
    ``UserError``, before anything is written, if that would replace a file with other contents.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name a folder to export to.")
    texts = {folder / f"{label}.yaml": _text(plan, specs) for label, specs in _conditions(plan)}
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


def _conditions(plan: Plan) -> list[tuple[str, list[RunSpec]]]:
    found: dict[str, list[RunSpec]] = {}
    for cell in plan.cells:
        if cell.spec is not None:
            found.setdefault(cell.label, []).append(cell.spec)
    return list(found.items())


def _text(plan: Plan, specs: Sequence[RunSpec]) -> str:
    first = specs[0]
    ids = ", ".join(f"{spec.id} (seed {spec.seed})" for spec in specs)
    header = (
        f"# {first.condition} of the suite {plan.suite.name}, every default written out.\n"
        f"# Run it alone:  altgrad-bench run {first.condition}.yaml\n"
        f"# Its runs, as in the suite:  {ids}\n\n"
    )
    head = {"name": f"{plan.suite.name}-{first.condition}", "description": plan.suite.description}
    body = [head, {"seeds": [spec.seed for spec in specs]}]
    body += [{section: values} for section, values in as_sections(first).items() if values]
    return header + "\n".join(map(dump_yaml, body))
