"""A format given by its table: equal to the formats whose values it is given; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from altgrad_plugins.formats.settings import TableSettings


def as_settings(values: torch.Tensor) -> list[float]:
    return values.tolist()


@pytest.mark.parametrize("name", ["e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"])
def test_a_table_equals_the_format_whose_values_it_has(
    build, reference, patterns, same, name: str
) -> None:
    fmt = build(name)
    table = build("table", values=as_settings(fmt.code_values()))
    assert (table.bits, table.max_finite, table.min_positive) == (
        8,
        fmt.max_finite,
        fmt.min_positive,
    )
    x = torch.cat([torch.from_numpy(patterns), torch.from_numpy(reference(name).probes())])
    same(table.round(x).numpy(), fmt.round(x).numpy())
    assert torch.equal(table.to_rung(x), fmt.to_rung(x))
    inside = x[x.abs() < fmt.max_finite]
    assert torch.equal(table.ulp(inside), fmt.ulp(inside))
    numbers = x[~x.isnan()]
    assert torch.equal(table.encode(numbers), fmt.encode(numbers))
    assert torch.equal(table.round(numbers.double()), fmt.round(numbers.double()))
    rungs = torch.arange(-300, 300)
    assert torch.equal(table.from_rung(rungs), fmt.from_rung(rungs))


def test_a_table_may_be_asymmetric(build) -> None:
    fmt = build("table", values=[-1.0, 0.0, 0.25, 3.0])
    x = torch.tensor([-5.0, -0.5, -0.4, 0.1, 0.125, 1.625, 1.6250001, 9.0])
    # ties: -0.5 between the codes 0 and 1, 0.125 between 1 and 2, 1.625 between 2 and 3
    assert fmt.round(x).tolist() == [-1.0, -1.0, 0.0, 0.0, 0.25, 0.25, 3.0, 3.0]
    assert fmt.to_rung(x).tolist() == [-1, -1, 0, 0, 1, 1, 2, 2]
    assert fmt.ulp(x).tolist() == [1.0, 1.0, 1.0, 0.25, 0.25, 2.75, 2.75, 2.75]
    assert fmt.encode(x).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_path_is_read_when_the_settings_are_checked(tmp_path: Path) -> None:
    values = [0.0, 1.0, 2.5, "nan", -0.0, -1.0, -2.5, "-inf"]
    as_json, as_text = tmp_path / "grid.json", tmp_path / "grid.txt"
    as_json.write_text(json.dumps([0, 1, 2.5, float("nan"), -0.0, -1, -2.5, float("-inf")]))
    as_text.write_text("# eight codes\n0 1 2.5, nan  # positive\n-0 -1.0 -25e-1 -inf\n")
    for path in (as_json, as_text):
        settings = TableSettings.model_validate({"values": str(path)})
        assert list(settings.values) == values
        assert str(settings.values[4]) == "-0.0"
    # The settings hold the values, not the path, and survive as JSON: a run can be repeated from them.
    again = TableSettings.model_validate_json(settings.model_dump_json())
    assert again == settings
    assert json.loads(json.dumps(settings.model_dump(mode="json"), allow_nan=False)) == {
        "values": values
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.0, 1.0, 2.0], "this one has 3"),
        ([1.0], "this one has 1"),
        ([], "this one has 0"),
        ([0.0] * 2**17, "this one has 131072"),
        ([1.0, 1.0], "at least two different finite values"),
        ([1.0, "nan"], "at least two different finite values"),
        ([-1.0, 0.0], "one of them positive"),
        ([0.0, 0.1], r"code 1, 0.1, is not a float32 value.*nearest is 0.10000000149011612"),
        ([0.0, 1e39], "code 1, 1e[+]39, is beyond the range of float32"),
        ([0.0, "one"], "code 1 is 'one'"),
        ([0.0, True], "code 1 is True, which is not a number"),
        ([0.0, None], "code 1 is None, which is not a number"),
        ([0, 10**400], "code 1 is 1000"),
        ({"a": 1}, "a list of numbers or the path"),
        (3.5, "a list of numbers or the path"),
    ],
)
def test_what_is_refused(values: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TableSettings.model_validate({"values": values})


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"gone\.txt: the table of values cannot be read"):
        TableSettings.model_validate({"values": str(tmp_path / "gone.txt")})
    (tmp_path / "half.json").write_text("[1, 2")
    with pytest.raises(ValidationError, match=r"half\.json: this is not JSON"):
        TableSettings.model_validate({"values": str(tmp_path / "half.json")})
    (tmp_path / "words.txt").write_text("0 1 two 3")
    with pytest.raises(ValidationError, match=r"words\.txt: the value of code 2 is 'two'"):
        TableSettings.model_validate({"values": str(tmp_path / "words.txt")})
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValidationError, match=r"binary\.txt: the table of values cannot be read"):
        TableSettings.model_validate({"values": str(tmp_path / "binary.txt")})
