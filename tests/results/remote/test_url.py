"""What ``--runs`` may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from altgrad_core.errors import UserError
from altgrad_core.results.remote.store import open_store
from altgrad_core.results.remote.url import Place, folder_of, place_of, url_of


def test_urls_and_folders_are_told_apart_also_as_paths() -> None:
    assert url_of("s3://bucket/runs/") == url_of(Path("s3://bucket/runs")) == "s3://bucket/runs"
    assert url_of("abfs://box@account.dfs.core.windows.net/runs").startswith("abfs://box@account")
    assert url_of("hdfs:///data/runs") == "hdfs:///data/runs"
    assert url_of("hdfs://node:8020/runs") == "hdfs://node:8020/runs"
    for folder in ("runs", "/data/runs", Path("runs"), "wandb:team/project", "C:/runs", "a:b.zip"):
        assert url_of(folder) == ""
        assert folder_of(folder) == Path(folder)
    assert url_of("file:///data/runs") == ""
    assert place_of("file:///data/runs").runs == folder_of(Path("file:///data/runs"))
    assert folder_of("file:///data/runs") == Path("/data/runs")
    assert (
        place_of("local:///data/runs")
        == place_of(Path("local:///data/runs"))
        == Place(Path("/data/runs"))
    )


def test_runs_of_two_urls_are_made_in_two_folders_of_the_cache() -> None:
    one, other = place_of("s3://bucket/runs"), place_of("s3://bucket/other")
    assert one.store == "s3://bucket/runs"
    assert one.runs != other.runs
    assert place_of(Path("s3://bucket/runs/")) == one


@pytest.mark.parametrize(
    "url",
    [
        "s3://me:geheim@bucket/runs",
        "https://h/runs?sig=geheim",
        "abfs://b/r#geheim",
        "a1://x::s3://geheim",
        "simplecache::s3://geheim/runs",
    ],
)
def test_a_url_with_a_secret_is_refused_without_saying_it(url: str) -> None:
    with pytest.raises(UserError, match="would stand in plans and logs") as refused:
        url_of(url)
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("url", ["s3://", "s3:///", "memory://a/../b"])
def test_a_url_without_a_folder_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="names no folder on a store"):
        url_of(url)


def test_what_cannot_be_opened_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.registry import known_implementations

    lacking = {"class": "nowhere_fs.NowhereFileSystem", "err": "Install nowhere_fs"}
    monkeypatch.setitem(known_implementations, "nowhere", lacking)
    with pytest.raises(UserError, match=r"nowhere:// needs .* pip install nowhere_fs$"):
        open_store("nowhere://bucket/runs")
    with pytest.raises(UserError, match="Protocol not known: nonsense"):
        open_store("nonsense://bucket/runs")
