"""``spec.yaml``: a run's spec as text, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from altgrad_core.errors import UserError
from altgrad_core.planning.document import FLOAT, FLOAT_STARTS
from altgrad_core.planning.spec import LAYOUT, RunSpec
from altgrad_core.registry.problems import dotted, explain


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # C is 10 times faster
    """Quotes texts that a suite file would read as numbers; writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, FLOAT_STARTS)

_LINE_BREAKS = frozenset("\x85\u2028\u2029")
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def dump_yaml(data: Any) -> str:
    """Plain data as YAML, keys in their own order."""
    text = _dumped(data, allow_unicode=True)
    # pyyaml writes Unicode's own line breaks as they are, and reads them back as spaces.
    return text if _LINE_BREAKS.isdisjoint(text) else _dumped(data, allow_unicode=False)


def _dumped(data: Any, *, allow_unicode: bool) -> str:
    return yaml.dump(
        data,
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=allow_unicode,
        default_flow_style=False,
    )


def dump_spec(spec: RunSpec) -> str:
    """The text of ``spec.yaml``."""
    return dump_yaml(spec.model_dump(mode="json"))


class OtherLayout(UserError):
    """The spec is of another version of altgrad-bench."""


def load_spec(path: Path) -> RunSpec:
    """Read ``spec.yaml``. Raises ``UserError`` for a damaged file or one of another layout."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as a run's spec: {error}") from error
    if not isinstance(data, dict) or "layout" not in data:
        raise UserError(f"{path} is no run's spec: it has no 'layout'.")
    if data["layout"] != LAYOUT:
        raise OtherLayout(
            f"{path} was written by another version of altgrad-bench: its layout is "
            f"{data['layout']!r}, this version's is {LAYOUT}. Use the version that wrote it, or "
            "run the suite into another folder with --runs."
        )
    try:
        return RunSpec.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(f"{dotted(p.path)}: {p.message}" for p in explain(error, RunSpec))
        raise UserError(f"{path} is no valid run's spec: {faults}") from error
