"""Reading EU law from files: formats, schema, and every way a file can be wrong."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.documents import Document, limit
from altgrad_plugins.tasks.eurlex import EurlexSource, fingerprint
from altgrad_plugins.tasks.eurlex_files import find_files, read_split
from altgrad_plugins.tasks.rows import compose, parse_row
from altgrad_plugins.tasks.settings import EurlexDataSettings, EurlexSettings

Write = Callable[[Path, Iterable[dict[str, Any]]], None]
ROW: dict[str, Any] = {
    "celex_id": "32004D0539",
    "title": "Pets",
    "text": "Dogs.",
    "eurovoc_concepts": ["7", "3"],
}


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_every_format_reads_the_same(
    tmp_path: Path, write_rows: Write, act_rows: Callable[[int, int], Any], suffix: str
) -> None:
    rows = act_rows(5, 0)
    write_rows(tmp_path / f"train{suffix}", rows)
    documents = read_split(tmp_path / f"train{suffix}", "train", "text")
    assert [d.id for d in documents] == [row["celex_id"] for row in rows]
    assert [d.text for d in documents] == [row["text"] for row in rows]
    assert [list(d.labels) for d in documents] == [sorted(r["eurovoc_concepts"]) for r in rows]


@pytest.mark.parametrize(
    ("title", "text", "both"),
    [
        ("Pets", "Dogs.", "Pets\nDogs."),
        ("Pets", "Pets and dogs.", "Pets and dogs."),
        ("Pets", "Pets", "Pets"),
        ("", "Dogs.", "Dogs."),
        (" Pets ", "", "Pets"),
        ("", "", ""),
    ],
)
def test_title_and_text_become_one(title: str, text: str, both: str) -> None:
    assert compose(title, text) == both


@pytest.mark.parametrize(
    ("choice", "text"), [("title", "Pets"), ("text", "Dogs."), ("both", "Pets\nDogs.")]
)
def test_the_setting_text_chooses(
    tmp_path: Path, write_rows: Write, choice: Any, text: str
) -> None:
    write_rows(tmp_path / "train.jsonl", [ROW])
    assert read_split(tmp_path / "train.jsonl", "train", choice) == [
        Document("32004D0539", text, ("3", "7"))
    ]


def test_own_data_need_only_texts_and_labels(tmp_path: Path, write_rows: Write) -> None:
    rows = [{"text": "Dogs.", "eurovoc_concepts": []}, {"text": None, "eurovoc_concepts": ["a"]}]
    write_rows(tmp_path / "test.jsonl", rows)
    documents = read_split(tmp_path / "test.jsonl", "test", "both")
    assert documents == [Document("test:1", "Dogs.", ()), Document("test:2", "", ("a",))]


def _row(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**ROW, **changes}.items() if value != "absent"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            _row(eurovoc_concepts=3),
            "row 2: 'eurovoc_concepts' should be a list of strings, found int",
        ),
        (_row(eurovoc_concepts=None), "should be a list of strings, found null"),
        (_row(eurovoc_concepts="3;7"), "should be a list of strings, found str"),
        (_row(eurovoc_concepts=["3", 7]), "should be a list of strings, found int in it"),
        (_row(eurovoc_concepts="absent"), "has no field 'eurovoc_concepts'; found 'celex_id'"),
        (_row(text=["Dogs."]), "'text' should be a string, found list"),
        (_row(celex_id=12), "'celex_id' should be a string, found int"),
        (_row(text="absent", title="absent"), "has no field 'title' or 'text' (data.text is"),
        ([1, 2], "should be an object with named fields, found list"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, write_rows: Write, row: Any, message: str) -> None:
    write_rows(tmp_path / "train.jsonl.gz", [ROW, row])
    with pytest.raises(UserError) as error:
        read_split(tmp_path / "train.jsonl.gz", "train", "both")
    assert str(error.value).startswith("file train.jsonl.gz, row 2")
    assert message in str(error.value)


def test_a_missing_title_matters_only_if_it_is_asked_for(tmp_path: Path, write_rows: Write) -> None:
    write_rows(tmp_path / "train.jsonl", [_row(title="absent")])
    assert read_split(tmp_path / "train.jsonl", "train", "both")[0].text == "Dogs."
    with pytest.raises(UserError, match="has no field 'title'"):
        read_split(tmp_path / "train.jsonl", "train", "title")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(ROW).encode() + b"\n\n{broken\n", "row 3 is not JSON"),
        (b'{"text": "\xff"}\n', "row 1 is not UTF-8"),
        (b"", "holds no rows"),
        (b"\n\n", "holds no rows"),
    ],
)
def test_a_malformed_file_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "train.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_split(tmp_path / "train.jsonl", "train", "both")


def test_a_cut_gzip_file_is_an_error(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(json.dumps(ROW).encode() + b"\n" for _ in range(50)))
    (tmp_path / "train.jsonl.gz").write_bytes(whole[:-12])
    with pytest.raises(UserError, match=r"not a whole gzip file \(after row \d+\)"):
        read_split(tmp_path / "train.jsonl.gz", "train", "both")


def test_what_is_not_gzip_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.gz").write_text(json.dumps(ROW))
    with pytest.raises(UserError, match="not a whole gzip file"):
        read_split(tmp_path / "train.jsonl.gz", "train", "both")


def test_parquet_of_another_schema_is_an_error(tmp_path: Path, write_rows: Write) -> None:
    write_rows(tmp_path / "train.parquet", [{"text": "Dogs.", "eurovoc_concepts": [3, 7]}])
    with pytest.raises(UserError, match="row 1: 'eurovoc_concepts' should be a list of strings"):
        read_split(tmp_path / "train.parquet", "train", "both")
    (tmp_path / "test.parquet").write_bytes(b"PAR0 and more")
    with pytest.raises(UserError, match="not a readable parquet file"):
        read_split(tmp_path / "test.parquet", "test", "both")


def test_a_missing_split_says_what_was_looked_for(acts: Path) -> None:
    (acts / "validation.jsonl").unlink()
    with pytest.raises(UserError) as error:
        find_files(str(acts))
    for part in ("validation.jsonl, validation.jsonl.gz, validation.parquet", "test.jsonl"):
        assert part in str(error.value)


def test_two_files_for_a_split_are_refused(acts: Path) -> None:
    (acts / "train.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"train\.jsonl and train\.parquet"):
        find_files(str(acts))


@pytest.mark.parametrize("name", ["nowhere", "train.jsonl"])
def test_a_path_that_is_no_folder_is_refused(acts: Path, name: str) -> None:
    with pytest.raises(UserError, match="should be a folder"):
        find_files(str(acts / name))


def test_a_mapping_names_the_files(acts: Path) -> None:
    files = {split: str(acts / f"{split}.jsonl") for split in ("train", "validation", "test")}
    settings = EurlexDataSettings.model_validate({"path": files})
    assert EurlexSource(settings).load(acts, print).splits.keys() == files.keys()
    for wrong, message in (
        ({**files, "test": str(acts / "gone.jsonl")}, r"data.path.test: there is no file .*gone"),
        ({**files, "test": str(Path(__file__))}, r"data.path.test: .* should end in \.jsonl"),
        ({"train": files["train"]}, "names no file for validation and test"),
    ):
        with pytest.raises(UserError, match=message):
            find_files(EurlexDataSettings.model_validate({"path": wrong}).path or "")


def test_all_texts_empty_is_an_error(tmp_path: Path, write_rows: Write) -> None:
    for split in ("train", "validation", "test"):
        write_rows(tmp_path / f"{split}.jsonl", [_row(title="")])
    settings = EurlexDataSettings(path=str(tmp_path), text="title")
    with pytest.raises(UserError, match=r"every training example is empty with data\.text='title'"):
        EurlexSource(settings).load(tmp_path, print)


def test_the_fingerprint_is_of_the_content(acts: Path, tmp_path: Path, write_rows: Write) -> None:
    def of(folder: Path) -> str:
        return fingerprint(EurlexSettings(data=EurlexDataSettings(path=str(folder))))["data"]

    before = of(acts)
    moved = acts.rename(tmp_path / "elsewhere")
    assert of(moved) == before
    write_rows(moved / "test.jsonl", [ROW])
    assert of(moved) != before


def test_the_fingerprint_of_the_hub_is_its_pinned_revision() -> None:
    data = fingerprint(EurlexSettings())
    commit = "04b1573bfbb926f9c5c9e2c149468c65ab6e604f"
    assert data == {"data": f"hub:jonathanli/eurlex@{commit}/eurlex57k/eurlex-{{split}}.parquet"}


def test_a_smaller_limit_is_a_subset_whatever_the_order() -> None:
    documents = [Document(str(number), f"text {number}", ()) for number in range(50)]
    ten, twenty = limit(documents, 10), limit(documents, 20)
    assert len(ten) == 10
    assert len(twenty) == 20
    assert set(ten) < set(twenty)
    assert [d for d in documents if d in ten] == ten
    assert set(limit(documents[::-1], 10)) == set(ten)
    assert limit(documents, 50) == limit(documents, None) == documents


@pytest.mark.parametrize("where", ["celex_id", "title", "text", "eurovoc_concepts"])
def test_half_of_a_character_is_refused_with_its_row(where: str) -> None:
    half = json.loads('"fi\\ud83dsh"')
    row: dict[str, Any] = {"celex_id": "1", "title": "a", "text": "b", "eurovoc_concepts": ["c"]}
    assert parse_row(row | {"title": "ü 日 \n 😀"}, "train.jsonl", 4, "train", "both").text
    row[where] = [half, "fish"] if where == "eurovoc_concepts" else half
    words = (
        rf"file train.jsonl, row 4: '{where}' holds half of a character \(\\ud83d\) at position 2"
    )
    with pytest.raises(UserError, match=words):
        parse_row(row, "train.jsonl", 4, "train", "both")
