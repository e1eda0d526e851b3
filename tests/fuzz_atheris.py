"""Coverage-guided fuzzing of all that is read from strangers, for as long as one likes; needs ``pip install atheris``.

``python tests/fuzz_atheris.py -max_total_time=3600`` from the root of the repository; other options are libFuzzer's.
The first byte of an input says what the rest is: a suite with overrides, a file of a run directory, or an archive.
Whatever it is, it is read or refused with a ``UserError``: anything else ends the run and leaves the input.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["altgrad_core.planning", "altgrad_core.results", "yaml"]):
    import fabricated_runs as f
    import numpy as np
    from fuzzing import WORDS
    from results.test_fuzz_reading import read, unvouched, use

    from altgrad_core.errors import UserError
    from altgrad_core.planning.planner import plan_suite
    from altgrad_core.planning.suite import parse_suite, shipped_suites
    from altgrad_core.registry.catalog import Catalog
    from altgrad_core.results.archive import pack, read_archive
    from altgrad_core.results.run_directory import RunDirectory
    from altgrad_core.results.stored import read_suites

_SPLIT = b"\0"
"""Between a suite and its overrides."""


class Reader:
    """Gives each input to what it is meant for. ``folder`` is empty, and its own."""

    def __init__(self, folder: Path) -> None:
        self._plugins = Catalog.discover()
        self._folder, self._whole = folder, folder / "whole" / "toy"
        f.write_matrix(self._whole, ["e5m2"], [0], lambda *_: [f.final_line(100, 0.5)])
        for place in (one for one in self._whole.iterdir() if one.is_dir()):
            np.savez_compressed(place / "predictions.npz", test_scores=np.eye(3))
            (place / "environment.json").write_text(json.dumps({"device": "cpu", "threads": 1}))
            (place / "facts.json").write_text(json.dumps({"data": {"examples": {"train": 3}}}))
            directory = RunDirectory(place)
            update = {"record": directory.record_digest(), "files": directory.digests()}
            directory.write_status(directory.status().model_copy(update=update))
        self._files = sorted(one for one in self._whole.rglob("*") if one.is_file())
        pack(read_suites(self._whole), folder / "whole.zip")
        self.readers: list[Callable[[bytes], Any]] = [self.suite, self.archive]
        self.readers += [lambda data, file=file: self.file(file, data) for file in self._files]

    def __call__(self, data: bytes) -> None:
        if data:
            with contextlib.suppress(UserError):
                self.readers[data[0] % len(self.readers)](data[1:])

    def suite(self, data: bytes) -> None:
        """A suite, and overrides as ``--set`` gives them; planned as far as no data are needed."""
        text, *overrides = data.split(_SPLIT)
        given = [one.decode("utf-8", "surrogateescape") for one in overrides]
        suite = parse_suite(text.decode("utf-8", "surrogateescape"), "s.yaml", self._folder, given)
        plan_suite(suite, self._plugins)

    def archive(self, data: bytes) -> None:
        """An archive of anybody's."""
        target = self._folder / "foreign.zip"
        target.write_bytes(data)
        suites = read_archive(target)
        use(suites)
        for suite in suites:  # it would stay until the process ends
            shutil.rmtree(suite.files, ignore_errors=True)

    def file(self, file: Path, data: bytes) -> None:
        """A file of a suite's folder, in a suite whose digests vouch for nothing."""
        victim = self._folder / "victim" / "toy"
        shutil.rmtree(victim, ignore_errors=True)
        shutil.copytree(self._whole, victim)
        unvouched(victim)
        (victim / file.relative_to(self._whole)).write_bytes(data)
        read(victim)

    def seeds(self) -> Iterator[bytes]:
        """An input of each kind, from which others are made."""
        for path in shipped_suites().values():
            yield bytes([0]) + path.read_bytes() + _SPLIT + b"training.max_steps=50"
        yield bytes([1]) + (self._folder / "whole.zip").read_bytes()
        for number, file in enumerate(self._files):
            yield bytes([2 + number]) + file.read_bytes()


def main() -> None:
    """Fuzz until libFuzzer's options say that it is enough."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reader = Reader(folder)
        corpus, words = folder / "corpus", folder / "words"
        corpus.mkdir()
        for number, seed in enumerate(reader.seeds()):
            (corpus / str(number)).write_bytes(seed)
        escaped = ("".join(f"\\x{byte:02x}" for byte in word) for word in WORDS if len(word) < 60)
        words.write_text("\n".join(f'"{word}"' for word in escaped) + "\n")
        options = [f"-dict={words}", "-max_len=20000", "-timeout=60", *sys.argv[1:], str(corpus)]
        atheris.Setup([sys.argv[0], *options], reader)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
