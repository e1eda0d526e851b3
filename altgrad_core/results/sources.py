"""Where results are read from: folders, archives, and trackers, one or several at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from altgrad_core.errors import UserError
from altgrad_core.registry.catalog import catalog
from altgrad_core.results.archive import is_archive, read_archive
from altgrad_core.results.merge import merge_suites
from altgrad_core.results.remote.copy import read_copies
from altgrad_core.results.remote.url import folder_of, url_of
from altgrad_core.results.stored import StoredSuite, read_suites

Source = str | Path
"""A run directory, a suite's folder, a folder of suites, or the URL of one of these, such as ``s3://bucket/runs``; an
archive; or ``TRACKER:ADDRESS``: what a tracker has kept, such as ``wandb:ENTITY/PROJECT``."""


Results = Source | Sequence[Source] | StoredSuite
"""One source or several; or a suite that was read already, which is taken as it is."""


def read_sources(sources: Results) -> tuple[StoredSuite, ...]:
    """The suites at one source, or at several; there, those of the same name become one.

    Raises ``UserError`` as :func:`~altgrad_core.results.stored.read_suites` and the trackers do, and
    for no source at all.
    """
    if isinstance(sources, StoredSuite):
        return (sources,)
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    if not given:
        raise UserError("No results were named: give a folder, an archive, or TRACKER:ADDRESS.")
    if len(given) == 1:
        return _read(given[0])
    by_name: dict[str, list[StoredSuite]] = {}
    for source in given:
        for suite in _read(source):
            by_name.setdefault(suite.name, []).append(suite)
    return tuple(merge_suites(same) for same in by_name.values())


def read_one(sources: Results) -> StoredSuite:
    """The one suite at the sources. Raises ``UserError`` as above, and if there are several."""
    suites = read_sources(sources)
    if len(suites) > 1:
        names = ", ".join(suite.source or str(suite.path) for suite in suites)
        raise UserError(
            f"These are the results of {len(suites)} suites, and one is needed. Name one of: {names}."
        )
    return suites[0]


def _read(source: Source) -> tuple[StoredSuite, ...]:
    if isinstance(source, str) and is_kept_elsewhere(source):
        name, _, address = source.partition(":")
        return tuple(catalog().source(name)(address))
    if url := url_of(source):
        return read_copies(url)
    path = folder_of(source)
    return read_archive(path) if is_archive(path) else read_suites(path)


def is_kept_elsewhere(source: str) -> bool:
    """Whether ``source`` is ``TRACKER:ADDRESS`` of a tracker that results can be read back from."""
    name, colon, _ = source.partition(":")
    return bool(colon) and name in catalog().sources()
