"""Why something could not be fetched from the Hugging Face hub, called by its own name."""

from __future__ import annotations

import errno
from collections.abc import Iterator

_NETWORK = frozenset({"httpx", "httpx2", "httpcore", "requests", "urllib3", "aiohttp"})
_LOG_IN = "log in with `hf auth login`"


def why(error: BaseException) -> str:
    """What went wrong, as a clause; the exceptions of several libraries come through here.

    Raises the ``OSError`` of a full disk again, which has nothing to do with the hub.
    """
    from huggingface_hub import errors

    known = (
        (
            errors.GatedRepoError,
            f"access to it is restricted: ask for it on its page and {_LOG_IN}",
        ),
        (
            errors.RepositoryNotFoundError,
            f"there is none of that name, or it is private: {_LOG_IN}",
        ),
        (errors.RevisionNotFoundError, "it has no such revision"),
        (errors.LocalEntryNotFoundError, "no network?"),
        (errors.EntryNotFoundError, "it lacks a file that is needed"),
        (errors.HfHubHTTPError, "the hub answered with an error"),
        (ConnectionError, "no network?"),
        (TimeoutError, "no network?"),
    )
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            raise cause
    what = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    kinds = [next((text for kind, text in known if isinstance(c, kind)), None) for c in chain]
    if any(kinds):
        return f"{next(filter(None, kinds))} ({what})"
    if any(type(cause).__module__.partition(".")[0] in _NETWORK for cause in chain):
        return f"no network? ({what})"
    if any(type(cause).__name__ == "DatasetGenerationError" for cause in chain):
        return f"what was fetched cannot be read ({what})"
    return what


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
