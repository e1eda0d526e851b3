"""YAML as plain data that remembers where each part was written, for errors with file and line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from altgrad_core.errors import UserError
from altgrad_core.planning.scalars import scalar
from altgrad_core.registry.problems import Path as SettingPath

_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_MERGE = "tag:yaml.org,2002:merge"
_PLAIN = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


_MOST_PARTS = 20_000
"""A suite has no more parts than this, aliases written out; checked before they are."""
_MOST_LEVELS = 50


class _Loader(yaml.SafeLoader):
    """``yaml.SafeLoader``, but ``2e-5`` is a number (YAML 1.1: a string) and dates are text."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - pyyaml's own declaration
        first: [(tag, regexp) for tag, regexp in resolvers if tag != _TIMESTAMP]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    parts = 0
    levels = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """As its parent; refuses deep nesting while it is read."""
        self.levels += 1
        if self.levels > _MOST_LEVELS:
            raise yaml.MarkedYAMLError(
                problem=f"it is nested more than {_MOST_LEVELS} levels deep",
                problem_mark=self.get_mark(),
            )
        node = super().compose_node(parent, index)
        self.levels -= 1
        return node

    def count(self, parts: int, node: yaml.Node) -> None:
        """Count what is built, and refuse aliases of aliases that would grow without end."""
        self.parts += parts
        if self.parts > _MOST_PARTS:
            raise yaml.MarkedYAMLError(
                problem=f"it has more than {_MOST_PARTS:,} parts, with its aliases written out",
                problem_mark=node.start_mark,
            )

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge ``<<`` keys; those of an alias come in first, so that each level is counted."""
        super().flatten_mapping(node)
        self.count(len(node.value), node)


FLOAT = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$")
"""Numbers that YAML 1.1 does not know as such, and the characters that they begin with."""
FLOAT_STARTS = list("-+.0123456789")

_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, FLOAT_STARTS)


@dataclass(frozen=True)
class Document:
    """A piece of YAML: its data, and the line of each of its parts."""

    data: Any
    source: str
    """What users call it: a file as they named it, or ``--set key=value``."""
    folder: Path
    """What relative paths in it are relative to."""
    lines: dict[SettingPath, int] = field(default_factory=dict, repr=False)
    prefix: SettingPath = ()
    """Where this piece stands in the whole to which ``lines`` belongs."""

    def where(self, path: SettingPath = ()) -> str:
        """``suite.yaml, line 7``: where ``path`` was written, or the nearest thing around it."""
        full = self.prefix + path
        while full and full not in self.lines:
            full = full[:-1]
        line = self.lines.get(full)
        return self.source if line is None else f"{self.source}, line {line}"

    def __getitem__(self, key: str | int) -> Document:
        """The piece below ``key``."""
        return replace(self, data=self.data[key], prefix=(*self.prefix, key))

    def items(self) -> Iterator[tuple[str, Document]]:
        """Keys and pieces of a mapping."""
        return ((key, self[key]) for key in self.data)

    def elements(self) -> list[Document]:
        """The pieces of a list; of anything else, itself alone."""
        if not isinstance(self.data, list):
            return [self]
        return [self[index] for index in range(len(self.data))]

    def error(self, message: str, path: SettingPath = ()) -> UserError:
        """The ``UserError`` that says ``message`` about ``path``."""
        return UserError(f"{self.where(path)}: {message}")


def parse(text: str, source: str, folder: Path) -> Document:
    """Read YAML. Raises ``UserError`` for malformed text and for a duplicate or non-text key."""
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:  # a character that YAML does not have
        raise UserError(f"{source}: this is not valid YAML: {error}") from error
    try:
        node = loader.get_single_node()
        document = Document(None, source, folder)
        if node is None:
            return document
        document.lines[()] = node.start_mark.line + 1
        return replace(document, data=_built(loader, node, (), document, ()))
    except RecursionError as error:
        raise UserError(
            f"{source}: this YAML alias contains itself, or is nested too deeply"
        ) from error
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        about = " ".join(filter(None, (error.context, error.problem)))
        raise UserError(f"{source}{line}: this is not valid YAML: {about}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{source}: this is not valid YAML: {error}") from error
    finally:
        loader.dispose()


def _built(
    loader: _Loader,
    node: yaml.Node,
    path: SettingPath,
    document: Document,
    around: tuple[yaml.Node, ...],
) -> Any:
    """The value of ``node``; the lines of it and its parts are noted in ``document``."""
    if node in around:
        raise document.error("this YAML alias contains itself", path)
    around = (*around, node)
    loader.count(1, node)
    if len(around) > _MOST_LEVELS:
        raise document.error(f"this is nested more than {_MOST_LEVELS} levels deep", path)
    if isinstance(node, yaml.CollectionNode) and node.tag not in _PLAIN:
        raise document.error(f"the YAML tag {node.tag} has no meaning here", path)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, child in enumerate(node.value):
            document.lines[(*path, index)] = child.start_mark.line + 1
            items.append(_built(loader, child, (*path, index), document, around))
        return items
    if isinstance(node, yaml.ScalarNode):
        return scalar(loader, node, document.source)
    if not isinstance(node, yaml.MappingNode):
        raise document.error("this YAML node has no meaning here", path)
    _refuse_duplicates(loader, node, document.source)
    loader.flatten_mapping(node)
    mapping = {}
    for key_node, child in node.value:
        key = scalar(loader, key_node, document.source)
        document.lines[(*path, key)] = key_node.start_mark.line + 1
        mapping[key] = _built(loader, child, (*path, key), document, around)
    return mapping


def _refuse_duplicates(loader: _Loader, node: yaml.MappingNode, source: str) -> None:
    seen: dict[str, int] = {}
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        if key_node.tag == _MERGE:
            continue
        if not isinstance(key_node, yaml.ScalarNode):
            raise UserError(f"{source}, line {line}: a key must be text, not a list or a mapping")
        key = scalar(loader, key_node, source)
        if not isinstance(key, str):
            raise UserError(f"{source}, line {line}: the key {key!r} is not text: put it in quotes")
        if key in seen:
            raise UserError(
                f"{source}, line {line}: {key!r} is given twice, first in line {seen[key]}"
            )
        seen[key] = line
