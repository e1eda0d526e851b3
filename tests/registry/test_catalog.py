from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.plugin import Need, Offer, Settings, hookimpl
from altgrad_core.registry import needs
from altgrad_core.registry.build import load_format
from altgrad_core.registry.catalog import Catalog
from altgrad_core.registry.needs import missing_needs, no_cuda

METRICS = (Metric("accuracy", "Accuracy", "higher", 0.0, primary=True),)


class Bits(Settings):
    bits: int = 8


def build(*arguments: Any) -> tuple[Any, ...]:
    return arguments


def fingerprint(settings: Bits) -> dict[str, str]:
    return {"bits": str(settings.bits)}


class Plugin:
    @hookimpl
    def altgrad_formats(self) -> list[Offer]:
        return [
            Offer("plain", "x", "catalog_target:build", Bits),
            Offer("nested", "x", "catalog_target:Namespace.build", Bits),
            Offer("no_module", "x", "no_such_module_at_all:build"),
            Offer("no_attribute", "x", "catalog_target:missing"),
            Offer(
                "lacking", "x", "catalog_target:build", needs=(Need("module", "no_such", "get it"),)
            ),
        ]

    @hookimpl
    def altgrad_tasks(self) -> list[Offer]:
        return [
            Offer(
                "texts",
                "x",
                "catalog_target:build",
                Bits,
                fingerprint="catalog_target:fingerprint",
                metrics=METRICS,
            ),
            Offer("nameless", "x", "catalog_target:build", Bits, metrics=METRICS),
        ]


@pytest.fixture
def catalog(monkeypatch: pytest.MonkeyPatch) -> Catalog:
    module = ModuleType("catalog_target")
    vars(module).update(
        build=build, fingerprint=fingerprint, Namespace=type("N", (), {"build": build})
    )
    monkeypatch.setitem(sys.modules, "catalog_target", module)
    return Catalog.from_modules(Plugin())


def test_formats_are_built_with_their_name_and_all_others_without(catalog: Catalog) -> None:
    assert catalog.build("format", "plain", {"bits": 4}) == ("plain", Bits(bits=4))
    assert catalog.build("format", "plain") == ("plain", Bits())
    assert catalog.build("format", "nested", Bits(bits=3)) == ("nested", Bits(bits=3))
    assert catalog.build("task", "texts", {}) == (Bits(),)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"bit": 3},
            r"settings of the format 'plain': bit: unknown key 'bit'. Did you mean 'bits'",
        ),
        ({"bits": "x"}, r"settings of the format 'plain': bits: input should be a valid integer"),
        ([1], "settings of the format 'plain': input should be a valid dictionary"),
    ],
)
def test_wrong_settings(catalog: Catalog, settings: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        catalog.validate("format", "plain", settings)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plane", r"unknown format 'plane'\. Did you mean 'plain'\? Allowed: plain, nested"),
        ("PLAIN", "Did you mean 'plain'"),
        ("no_module", "of tests 0 cannot be loaded from .*No module named 'no_such_module_at_all'"),
        ("no_attribute", "cannot be loaded from 'catalog_target:missing': AttributeError"),
        ("lacking", r"of tests 0 needs the Python module 'no_such' \(get it\)"),
    ],
)
def test_what_cannot_be_built(catalog: Catalog, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        catalog.build("format", name)


def test_a_kind_without_offers_says_so() -> None:
    with pytest.raises(UserError, match="There is no tracker to choose from"):
        Catalog().get("tracker", "x")


def test_fingerprints(catalog: Catalog) -> None:
    assert catalog.fingerprint("texts", {"bits": 5}) == {"bits": "5"}
    assert catalog.fingerprint("nameless", {}) == {}


def test_merging_keeps_both() -> None:
    both = Catalog.from_modules(Plugin()).merged(
        Catalog.from_modules(Plugin(), distribution="other")
    )
    assert len(both.clashes()) == 7
    assert both.names("format") == []


def test_load_format_builds_an_installed_format() -> None:
    assert load_format("e5m2").name == "e5m2"
    assert load_format("exmy", exponent_bits=3, mantissa_bits=2).bits == 6
    with pytest.raises(UserError, match="Did you mean 'e5m2'"):
        load_format("e5m2x")
    with pytest.raises(UserError, match="settings of the format 'e5m2'"):
        load_format("e5m2", width=3)


# ---- needs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["json", "importlib.metadata"])
def test_modules_that_are_there(name: str) -> None:
    assert missing_needs(Offer("x", "x", "a:b", needs=(Need("module", name),))) == []


@pytest.mark.parametrize("name", ["no_such", "no_such.below", "json.no_such", "sys.no_such"])
def test_modules_that_are_not_there(name: str) -> None:
    offer = Offer("x", "x", "a:b", needs=(Need("module", name), Need("module", "json")))
    assert missing_needs(offer) == [f"needs the Python module {name!r}"]


@pytest.mark.parametrize(
    "file",
    ["dev/nvidia0", "dev/nvidia12", "proc/driver/nvidia/gpus/0000:01:00.0", "dev/dxg"],
)
def test_a_gpu_is_seen_by_the_files_of_its_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    assert "the NVIDIA driver shows none" in no_cuda(tmp_path)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    assert no_cuda(tmp_path) == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert no_cuda(tmp_path) == ""


@pytest.mark.parametrize("hidden", ["", "-1", " "])
def test_a_gpu_can_be_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hidden: str) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidia0").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert no_cuda(tmp_path) == f"CUDA_VISIBLE_DEVICES={hidden!r} hides them all"
    offer = Offer("x", "x", "a:b", needs=(Need("cuda", hint="rent one"),))
    (sentence,) = missing_needs(offer)
    assert sentence.startswith("needs a CUDA device: CUDA_VISIBLE_DEVICES=")
    assert sentence.endswith("(rent one)")


def test_the_files_of_a_driver_agree_with_torch() -> None:
    import torch

    assert (needs.no_cuda() == "") == torch.cuda.is_available()
