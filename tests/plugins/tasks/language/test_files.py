"""Any folder of .txt and .jsonl; which texts go where, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.documents import Corpus
from altgrad_plugins.tasks.language.files import FilesSource
from altgrad_plugins.tasks.language.preparation import _cleaned
from altgrad_plugins.tasks.language.settings import LanguageSettings
from altgrad_plugins.tasks.language.sources import fingerprint, text_source
from altgrad_plugins.tasks.settings import SPLITS


def _load(folder: Path) -> Corpus:
    return FilesSource(str(folder)).load(folder, lambda message: None)


def _texts(corpus: Corpus) -> dict[str, list[str]]:
    return {split: [d.text for d in corpus.splits[split]] for split in SPLITS}


def test_files_and_folders_named_like_splits_are_the_splits(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "b.txt").write_text("bee")
    (tmp_path / "train" / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "ay"}\n'))
    (tmp_path / "validation.jsonl").write_text('{"text": "vee"}\n{"text": "wee"}\n')
    (tmp_path / "test.txt").write_text("tee")
    (tmp_path / "README.txt").write_text("not a text")
    assert _texts(_load(tmp_path)) == {
        "train": ["ay", "bee"],
        "validation": ["vee", "wee"],
        "test": ["tee"],
    }


def test_other_folders_are_split_by_document_with_near_duplicates_together(tmp_path: Path) -> None:
    long = " ".join(f"word{n}" for n in range(400))
    for number in range(5):
        (tmp_path / f"copy{number}.txt").write_text(f"{long} and then {number}")
    rows = [{"text": f"text number {n} of a few " + "abc"[n % 3] * n} for n in range(1, 30)]
    rows.append({"text": "Text number 1, of a few: a!"})  # as the first but for case and signs
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = _load(tmp_path)
    where = [s for s in SPLITS if any("word7" in text for text in _texts(corpus)[s])]
    assert len(where) == 1
    assert all(corpus.splits.values())
    assert sum(map(len, corpus.splits.values())) == 5 + 29 + (rows[0]["text"].endswith("b"))
    assert _load(tmp_path) == corpus


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("\ufeffone", encoding="utf-8")
    (tmp_path / "validation.jsonl").write_text('\ufeff{"text": "two"}\n', encoding="utf-8")
    (tmp_path / "test.txt").write_text("three")
    texts = {"train": ["one"], "validation": ["two"], "test": ["three"]}
    assert _texts(_load(tmp_path)) == texts


def test_three_documents_are_enough(tmp_path: Path) -> None:
    for name in "xyz":
        (tmp_path / f"{name}.txt").write_text(f"the document {name}")
    assert [len(documents) for documents in _load(tmp_path).splits.values()] == [1, 1, 1]


def test_a_later_split_has_no_text_of_an_earlier_one(tmp_path: Path) -> None:
    for split, text in (("train", "one"), ("validation", "One!"), ("test", "two")):
        (tmp_path / f"{split}.jsonl").write_text(f'{{"text": "{text}"}}\n{{"text": "{split}"}}\n')
    corpus = _cleaned(_load(tmp_path), None)
    assert _texts(corpus)["validation"] == ["validation"]
    assert corpus.facts["left_out_as_in_an_earlier_split"] == {
        "train": 0,
        "validation": 1,
        "test": 0,
    }


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "holds no file that ends in .txt, .jsonl, .jsonl.gz"),
        ({"a.txt": b"only one"}, r"holds 1 distinct document\(s\), and each of train"),
        ({"a.txt": b"\xff"}, "is not UTF-8"),
        ({"a.jsonl": b'{"texts": "x"}\n'}, "row 1 should be an object with a string 'text'"),
        ({"a.jsonl": b'{"id": 1, "content": "x"}\n'}, "'text'; found 'id', 'content'."),
        ({"a.jsonl": b'{"text": 3}\n'}, "'text'; found 3 there."),
        ({"a.jsonl": b"[]\n"}, "'text'; found a list."),
        ({"sub/a.jsonl": b"{\n"}, "sub/a.jsonl, row 1 is not JSON"),
        ({"train.txt": b"a b", "test/a.txt": b"c d"}, "has train and test, and no validation"),
        ({"a.jsonl": b'{"text": "\\ud83d"}\n'}, "half of a character at position 0"),
        ({"a.jsonl": b"text\n"}, "row 1 is not JSON"),
        ({"a.jsonl": b"[" * 100_000}, "row 1 is not JSON"),
        ({"a.jsonl": b'{"text": "x", "n": ' + b"9" * 5000 + b"}"}, "row 1 is not JSON"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, files: dict[str, bytes], problem: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=problem):
        _load(tmp_path)


def test_the_fingerprint_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one")
    source = FilesSource(str(tmp_path))
    before = source.fingerprint()
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    renamed = source.fingerprint()
    (tmp_path / "b.txt").write_text("two")
    assert len({before, renamed, source.fingerprint()}) == 3


def test_every_source_of_the_other_tasks_is_one(acts: Path) -> None:
    given = LanguageSettings.model_validate({"data": {"source": "eurlex", "path": str(acts)}})
    assert text_source(given.data).name == "eurlex"
    assert fingerprint(given)["data"].startswith("sha256:")
    assert text_source(LanguageSettings().data).name == "license_rules"
    hub = LanguageSettings.model_validate({"data": {"hub": "lex_glue"}})
    assert fingerprint(hub)["data"].startswith("hub:coastalcph/lex_glue@")
    published = LanguageSettings.model_validate({"data": {"source": "eurlex"}})
    assert fingerprint(published)["data"].startswith("hub:jonathanli/eurlex@")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"data": {"source": "files"}}, "needs path"),
        ({"data": {"source": "license_rules", "path": "x"}}, "reads no path"),
        ({"data": {"source": "files", "path": "x", "hub": "lex_glue"}}, "hub and text are for"),
        ({"data": {"text": "title"}}, "and source is license_rules"),
        ({"data": {"vocab_size": 100}}, "at least 257"),
        ({"model": {"num_heads": 3}}, "must divide"),
        ({"data": {"tokenizer": "bytes"}, "model": {"pretrained": "gpt2"}}, "brings its own"),
        ({"model": {"type": "bert"}}, "decoder"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        LanguageSettings.model_validate(given)
