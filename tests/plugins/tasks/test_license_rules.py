"""Licence rules: parsing, what is left out, splits; and the counts of the real package."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from altgrad_core.errors import UserError
from altgrad_plugins.tasks import license_rules, near_duplicates
from altgrad_plugins.tasks.license_rules import LicenseRulesSource, parse_rules
from altgrad_plugins.tasks.settings import LicenseRulesDataSettings

WORDS = "permission is hereby granted to any person who obtains a copy of this software to use"
AddRule = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, category in (("mit", "Permissive"), ("gpl-2.0", "Copyleft"), ("odd", None)):
        text = f"---\nkey: {name}\n" + (f"category: {category}\n" if category else "")
        path = tmp_path / "data" / "licenses" / f"{name}.LICENSE"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}---\n\nfull text\n")
    (tmp_path / "data" / "rules").mkdir()
    return tmp_path / "data"


@pytest.fixture
def add(folder: Path) -> AddRule:
    def write(name: str, text: str = WORDS, **header: str) -> None:
        header = {"license_expression": "mit", "is_license_notice": "yes", **header}
        lines = "".join(f"{key}: {value}\n" for key, value in header.items() if value)
        (folder / "rules" / f"{name}.RULE").write_text(f"---\n{lines}---\n\n{text}\n")

    return write


def _parsed(folder: Path) -> tuple[dict[str, int], dict[str, tuple[str, ...]]]:
    facts, splits = parse_rules(folder)
    documents = [document for split in splits.values() for document in split]
    return facts["left_out"], {document.id: document.labels for document in documents}


def test_labels_are_licences_categories_and_kinds(folder: Path, add: AddRule) -> None:
    expression = "(gpl-2.0 WITH odd) OR mit AND unheard-of"
    add("a", license_expression=expression, is_license_text="yes", relevance="100")
    _, labels = _parsed(folder)
    assert labels["a"] == (
        "category:Copyleft",
        "category:Permissive",
        "key:gpl-2.0",
        "key:mit",
        "key:odd",
        "key:unheard-of",
        "kind:notice",
        "kind:text",
    )


def test_what_is_left_out_is_counted(folder: Path, add: AddRule) -> None:
    add("a")
    add("b_same_words", text=WORDS.upper().replace(" ", "\n ") + "!")
    add("c_short", text=" ".join(["word"] * 14))
    add("d_false", license_expression="", is_false_positive="yes")
    add("e_old", is_deprecated="yes")
    add("f_nameless", text=WORDS + " once", license_expression="")
    add("g_not_a_notice", text=WORDS + " twice", is_license_notice="no")
    left_out, labels = _parsed(folder)
    assert left_out == {
        "deprecated": 1,
        "duplicate": 1,
        "false_positive": 1,
        "short": 1,
        "without_licence": 1,
    }
    assert labels.keys() == {"a", "g_not_a_notice"}
    assert labels["g_not_a_notice"] == ("category:Permissive", "key:mit")


def test_marks_of_the_annotators_are_taken_off(folder: Path, add: AddRule) -> None:
    add("a", text=f"{{{{MIT Licence}}}} {WORDS}")
    _, splits = parse_rules(folder)
    assert [d.text for split in splits.values() for d in split] == [f"MIT Licence {WORDS}"]


def test_a_file_without_header_is_an_error(folder: Path, add: AddRule) -> None:
    (folder / "rules" / "broken.RULE").write_text("no header")
    with pytest.raises(UserError, match=r"broken\.RULE has no YAML header"):
        parse_rules(folder)


def test_near_duplicates_share_a_split_and_large_groups_are_trained_on(
    folder: Path, add: AddRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    for group in range(60):
        base = " ".join(f"g{group}w{i}" for i in range(120))
        for copy in range(2):
            add(f"{group:02d}_{copy}", text=f"{base} {'end ' * copy}")
    _, splits = parse_rules(folder)
    of = {document.id: split for split, documents in splits.items() for document in documents}
    assert all(of[f"{group:02d}_0"] == of[f"{group:02d}_1"] for group in range(60))
    sizes = Counter(of.values())
    assert 72 <= sizes["train"] <= 114
    assert sizes["validation"] > 0
    assert sizes["test"] > 0
    monkeypatch.setattr(near_duplicates, "LARGE_GROUP", 1)
    _, splits = parse_rules(folder)
    assert len(splits["train"]) == 120


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(license_rules, "MODULE", "altgrad_no_such_module")
    with pytest.raises(UserError, match=r"not installed: pip install 'altgrad-bench\[demo\]'"):
        license_rules.data_folder()
    monkeypatch.setattr(license_rules, "DISTRIBUTION", "altgrad-no-such-distribution")
    with pytest.raises(UserError, match="is not installed"):
        LicenseRulesSource(LicenseRulesDataSettings()).fingerprint()


def test_documents_are_parsed_once(
    folder: Path, add: AddRule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("a")
    monkeypatch.setattr(license_rules, "data_folder", lambda: folder)
    monkeypatch.setattr(license_rules, "_installed_version", lambda: "1.0")
    messages: list[str] = []
    source = LicenseRulesSource(LicenseRulesDataSettings())
    first = source.load(tmp_path / "cache", messages.append)
    (folder / "rules" / "a.RULE").unlink()
    assert source.load(tmp_path / "cache", messages.append) == first
    assert len(messages) == 1
    assert first.facts["licence"] == "CC-BY-4.0"
    assert "1.0" in first.facts["source"]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("licensedcode") is None, reason="licensedcode-data is not installed"
)
def test_the_real_package(tmp_path: Path) -> None:
    source = LicenseRulesSource(LicenseRulesDataSettings())
    if "32.1.0" not in source.fingerprint():
        pytest.skip("the counts are those of licensedcode-data 32.1.0")
    corpus = source.load(tmp_path, print)
    sizes = {split: len(documents) for split, documents in corpus.splits.items()}
    assert sizes == {"train": 10907, "validation": 1314, "test": 1172}
    documents = [document for split in corpus.splits.values() for document in split]
    counts = Counter(label for document in documents for label in document.labels)
    frequent = {label for label, count in counts.items() if count >= 50}
    assert len(frequent) == 60
    carried = sum(len(frequent.intersection(d.labels)) for d in documents)
    assert carried / len(documents) == pytest.approx(3.2, abs=0.05)
    assert len({document.id for document in documents}) == len(documents)
