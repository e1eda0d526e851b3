from __future__ import annotations

import pytest
from altgrad_nf4.nf4 import NF4, nf4_values

from altgrad_core import load_format
from altgrad_core.testing.formats import check_format


def test_the_contract() -> None:
    check_format(NF4("nf4"))


def test_it_is_found_by_name() -> None:
    assert isinstance(load_format("nf4"), NF4)


def test_the_values_are_those_of_the_paper() -> None:
    # As printed in its appendix, here to 6 digits.
    values = nf4_values()
    assert values[:8] == pytest.approx(
        [-1.0, -0.696193, -0.525073, -0.394917, -0.284441, -0.184773, -0.091050, 0.0], abs=2e-5
    )
    assert values[8:] == pytest.approx(
        [0.079580, 0.160930, 0.246112, 0.337915, 0.440710, 0.562617, 0.722957, 1.0], abs=2e-5
    )
