"""The run directory ``runs/<suite>/<id>/``: the record of one run.

=====================  ===========================================================================
``spec.yaml``          the :class:`~altgrad_core.planning.spec.RunSpec`
``environment.json``   versions, git commit, hardware, device, threads
``status.json``        :class:`Status`
``facts.json``         facts about the task's data and the format, and what was quantised
``metrics.jsonl``      one :class:`Record` per line, written as it happens
``checkpoint/``        ``state.pt`` while the run is not finished; ``model.safetensors`` if asked for
``predictions.npz``    per-example predictions of the final evaluation, keys ``<split>_<array>``
``resampled.npz``      of an archive alone: the metric that decides, in each draw of the test examples
``log.txt``            what the run printed
``lock``               held by the process that is running the run
=====================  ===========================================================================

Every whole file is written to a temporary file beside it and renamed. Reading needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from altgrad_core._files import leftovers, write_text
from altgrad_core._text import plain
from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import Settings
from altgrad_core.results.objects import check_zip, damaged, read_environment, read_object

StatusName = Literal[
    "pending", "running", "ok", "diverged", "oom", "timeout", "killed", "error", "skipped"
]
FINISHED: frozenset[str] = frozenset({"ok", "diverged"})
"""Statuses that are results. Every other one is run again when the suite is run again."""
FAILED: frozenset[str] = frozenset({"oom", "timeout", "killed", "error"})
"""Statuses of runs that ended without a result."""

RecordKind = Literal["train", "monitor", "evaluation", "final", "event"]


class Status(Settings):
    """Contents of ``status.json``."""

    status: StatusName = "pending"
    step: int = 0
    max_steps: int = 0
    message: str = Field("", description="why, when the status is not ok")
    started: float | None = Field(None, description="Unix time of the first start")
    updated: float | None = Field(None, description="Unix time of the last sign of life")
    seconds: float = Field(0.0, description="wall time of the worker, all restarts together")
    notes: tuple[str, ...] = Field((), description="what a reader should know: a tracker failed")
    record: str | None = Field(
        None, description="sha256 of metrics.jsonl as the run left it; known of a run with a result"
    )
    files: dict[str, str] = Field(
        default_factory=dict,
        description="name -> sha256 of spec.yaml, and of a run with a result its other whole files",
    )


class Record(Settings):
    """One line of ``metrics.jsonl``.

    Families that the core writes: ``train/all/loss``, ``train/all/learning_rate``;
    ``validation/all/<metric>`` (kind ``evaluation``); ``final/validation/<metric>`` and
    ``final/test/<metric>`` (kind ``final``, one line at the end). Monitors write
    ``family/layer/metric`` (kind ``monitor``). An ``event`` line has ``event`` instead of metrics:
    ``{"kind": ..., "layer": ..., "message": ...}``. NaN and the infinities, which JSON lacks, are the
    strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

    step: int
    kind: RecordKind
    metrics: dict[str, float] = Field(default_factory=dict)
    event: dict[str, str] | None = None

    def to_json(self) -> str:
        """The line, without its newline: strict JSON, floats to full precision."""
        told = {"step", "kind", "metrics" if self.event is None else "event"}
        return self.model_dump_json(include=told)


class RunDirectory:
    """The files of one run, by name."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.spec = self.path / "spec.yaml"
        self.environment = self.path / "environment.json"
        self.status_file = self.path / "status.json"
        self.facts = self.path / "facts.json"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoint = self.path / "checkpoint" / "state.pt"
        self.model = self.path / "checkpoint" / "model.safetensors"
        self.predictions = self.path / "predictions.npz"
        self.resampled = self.path / "resampled.npz"
        self.log = self.path / "log.txt"
        self.lock = self.path / "lock"

    def create(self, spec_text: str) -> None:
        """Make the directory, unless it is there already, and write its spec.

        The spec of a run with a result stays as it is. That of an unfinished run is replaced: what
        enters its id is the same, but the trackers may be others now.
        """
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        if not (self.spec.exists() and self.status().status in FINISHED):
            self.write_spec(spec_text)
        if not self.status_file.exists():
            self.write_status(Status(files=self.digests((self.spec,))))

    def write_spec(self, text: str) -> None:
        """Replace the spec, and the digest of it that the status keeps."""
        write_text(self.spec, text)
        if self.status_file.exists():
            status = self.status()
            files = {**status.files, **self.digests((self.spec,))}
            self.write_status(status.model_copy(update={"files": files}))

    def remove_leftovers(self) -> None:
        """Remove the files that a worker was cut off in writing. For the holder of the run's lock."""
        for path in (*self._whole_files, self.status_file, self.checkpoint, self.model):
            for leftover in leftovers(path):
                leftover.unlink(missing_ok=True)

    @property
    def _whole_files(self) -> tuple[Path, ...]:
        """The files of the record that are written at once, less the status, which vouches for them."""
        return self.spec, self.environment, self.facts, self.predictions

    def digests(self, paths: Iterable[Path] = ()) -> dict[str, str]:
        """Name -> sha256 of these files, or of the whole files of the record, as far as they are there."""
        there = (path for path in (tuple(paths) or self._whole_files) if path.exists())
        return {path.name: _sha256(path) for path in there}

    def check_files(self, status: Status) -> None:
        """``UserError`` if a file is not as the status says that the run left it."""
        for path in self._whole_files:
            kept = status.files.get(path.name)
            try:
                whole = kept is None or _sha256(path) == kept
            except OSError as error:
                raise damaged(path, error.strerror or str(error)) from error
            if not whole:
                raise damaged(path, "it is not as the run left it: it was cut or changed")

    def status(self) -> Status:
        """The status; ``pending`` where there is none yet, ``error`` where it cannot be read.

        One such run is no result, which its message says; it stops nothing else.
        """
        try:
            return self.read_status()
        except UserError as error:
            return Status(status="error", message=str(error))

    def read_status(self) -> Status:
        """The status; ``pending`` where there is none yet. Raises ``UserError`` if it cannot be read."""
        try:
            return Status.model_validate_json(self.status_file.read_bytes())
        except FileNotFoundError:
            return Status()
        except OSError as error:
            raise damaged(self.status_file, error.strerror or str(error)) from error
        except ValidationError as error:
            raise damaged(self.status_file, error.errors()[0]["msg"]) from error

    def write_status(self, status: Status) -> None:
        """Replace the status. Its texts come from anywhere: they are stripped and cut here."""
        clean = {"message": plain(status.message), "notes": tuple(map(plain, status.notes))}
        write_text(
            self.status_file, status.model_copy(update=clean).model_dump_json(indent=2) + "\n"
        )

    def has_result(self) -> bool:
        """Whether the run is finished and its record is whole; if not, it is to be run again."""
        return self.status().status in FINISHED and not self.damage()

    def damage(self) -> str:
        """What of the record cannot be read, or is not as the run left it; empty if all is well.

        The metrics of a run without a result may end anywhere.
        """
        try:
            status = self.read_status()
            read_environment(self.environment)
            read_object(self.facts)
            self.check_files(status)
            if status.status not in FINISHED:
                return ""
            if self.predictions.name not in status.files:  # else its digest has vouched for it
                check_zip(self.predictions)
            if status.record is not None and status.record != self.record_digest():
                raise damaged(self.metrics, "it is not as the run left it: it was cut or changed")
            if status.record is None:
                kinds = {record.kind for record in self.records()}
                if status.status == "ok" and "final" not in kinds:
                    raise damaged(self.metrics, "it has no final evaluation: it was cut")
        except UserError as error:
            return str(error)
        except OSError as error:
            return f"{self.path} cannot be read ({error.strerror or error})"
        return ""

    def record_digest(self) -> str | None:
        """The sha256 of ``metrics.jsonl``; None where there is none."""
        return _sha256(self.metrics) if self.metrics.exists() else None

    def records(self) -> Iterator[Record]:
        """Records in order. A half-written last line is passed over; a damaged line elsewhere is an error."""
        try:
            lines = self.metrics.read_bytes().split(b"\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise damaged(self.metrics, error.strerror or str(error)) from error
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            try:
                yield Record.model_validate_json(line)
            except ValidationError as error:
                if number == len(lines):  # no newline after it: the writer was cut off
                    return
                raise UserError(
                    f"{self.metrics}, line {number}: not a metrics record "
                    f"({error.errors()[0]['msg']}). Run the suite again, which repeats this run."
                ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RecordLost(Exception):
    """What was recorded is not whole any more, and cannot be had back but by starting again."""
