"""``pytest --altgrad-check DISTRIBUTION``: every conformance check as a test. Idle unless it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from altgrad_core.testing.inventory import Subject


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the one option."""
    parser.getgroup("altgrad-bench").addoption(
        "--altgrad-check",
        action="append",
        default=[],
        metavar="NAME",
        help="test what a distribution, or an offer, of altgrad-bench plugins has to keep to",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add a test for each thing that is to be checked."""
    if names := config.getoption("--altgrad-check"):
        items.extend(_items(session, names))


def _items(session: pytest.Session, names: list[str]) -> Iterator[ContractItem]:
    from altgrad_core.errors import UserError
    from altgrad_core.testing.inventory import subjects

    try:
        chosen = subjects(*names)
    except UserError as error:
        raise pytest.UsageError(f"--altgrad-check: {error}") from error
    for one in chosen:
        yield ContractItem.from_parent(session, name=f"altgrad: {one}", subject=one)


class ContractItem(pytest.Item):
    """The checks of one offer."""

    def __init__(self, *, subject: Subject, **more: Any) -> None:
        super().__init__(**more)
        self.subject = subject

    def runtest(self) -> None:
        """Check it."""
        self.subject.check()

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The rule and the example of a fault, without the traceback of the check itself."""
        from altgrad_core.testing.rules import Fault

        if isinstance(excinfo.value, Fault):
            return f"rule: {excinfo.value.rule}\nhere: {excinfo.value.example}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[str, None, str]:
        """Where it is said to be."""
        return self.subject.distribution, None, self.name
