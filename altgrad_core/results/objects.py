"""Reading files of a suite that may be damaged, and what is said of one that is."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from altgrad_core.errors import UserError

_ModelT = TypeVar("_ModelT", bound=BaseModel)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no file. ``UserError`` if it cannot be read."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise damaged(path, "it holds no JSON object")
    return value


def read_settings(path: Path) -> dict[str, Any]:
    """The YAML mapping in a file. ``UserError`` if it cannot be read.

    The runs of a suite have most sections in common, and to parse YAML takes long: each text of a section
    is parsed once. A file that is not laid out in sections is parsed as a whole.
    """
    broken = (ValueError, RecursionError, yaml.YAMLError)
    try:
        text = path.read_bytes()
        with contextlib.suppress(*broken):
            parts = [_parsed(part) for part in _SECTIONS.split(text) if part]
            if parts and all(isinstance(part, dict) for part in parts):
                return {name: value for part in parts for name, value in part.items()}
        raw = yaml.load(text, Loader=_LOADER)
    except (OSError, *broken) as error:
        raise damaged(path, str(error).replace("\n", " ")) from error
    if not isinstance(raw, dict):
        raise damaged(path, "it holds no settings")
    return raw


_SECTIONS = re.compile(rb"^(?=[^\s#-])", re.MULTILINE)
"""Where a key of the outermost mapping begins; items of its lists begin with a dash."""
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.lru_cache(maxsize=1024)
def _parsed(section: bytes) -> Any:
    return yaml.load(section, Loader=_LOADER)


class _Environment(BaseModel):
    """What tables and reports make use of in ``environment.json``."""

    model_config = ConfigDict(strict=True)

    python: str | None = None
    device: str | None = None
    device_name: str | None = None
    threads: int | None = None
    micro_batches: int | None = None
    packages: dict[str, str] = Field(default_factory=dict)
    distributions: dict[str, str] = Field(default_factory=dict)
    step: int | None = 0
    attempts: int = 1
    earlier: list[_Environment] = Field(default_factory=list)


def read_environment(path: Path) -> dict[str, Any]:
    """``environment.json`` as it is; empty where there is none. ``UserError`` if it is no such file."""
    value = read_object(path)
    validated(_Environment, value, path)
    return value


def validated(model: type[_ModelT], raw: dict[str, Any], path: Path) -> _ModelT:
    """What a file holds, as a model. ``UserError`` if it does not fit."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise damaged(path, f"{where}: {first['msg']}") from error


BROKEN_ZIP = (
    *(OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error),
    *(NotImplementedError, RuntimeError),  # unknown compression; a password
)
"""What reading a damaged zip file, such as ``predictions.npz``, may raise."""


def check_zip(path: Path) -> None:
    """Read a zip file against its checksums, if it is there. ``UserError`` if it is damaged."""
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except FileNotFoundError:
        return
    except BROKEN_ZIP as error:
        raise damaged(path, str(error)) from error
    if broken is not None:
        raise damaged(path, f"{broken} in it is not as it was written")


def damaged(path: Path, reason: str) -> UserError:
    """The error for a file that cannot be read, with what to do about it."""
    remedy = "Run the suite again, which repeats this run."
    if path.name in ("plan.json", "tuning.json"):
        remedy = f"Move {path} away and run the suite again."
    return UserError(f"{path} cannot be read ({reason}). {remedy}")
