"""`s3://`, `gs://`, `az://`: a prefix in an object store, through obstore (Rust's object_store). Extra: `s3`.

Endpoint and credentials come from the store's usual environment variables (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_REGION, GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_NAME, ...), or from the role of the machine or pod.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from accord import atomic
from accord.errors import AccordError, FailedPrecondition, NotFound, PermissionDenied, Unavailable
from accord_runtime.artifacts.paths import inside
from accord_runtime.artifacts.transfer import Limits, Progress

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore

# Progress is counted per piece, so with larger pieces a slow link would look stalled.
CHUNK_BYTES = 4 * 2**20
_STATUS = re.compile(r"status code: (\d{3})")


async def fetch(uri: str, target: Path, progress: Progress) -> Path:
    """Copies everything below the prefix, then moves the complete folder into place.

    NotFound, WEIGHTS_NOT_FOUND; PermissionDenied and Unavailable, OBJECT_STORE; FailedPrecondition, MISSING_EXTRA.
    """
    with _translated(uri):
        import obstore

        store = _open(uri, progress.limits)
        files = [one async for batch in obstore.list(store) for one in batch if one["path"]]
        if not files:
            raise _nothing(uri)
        atomic.require_space(target.parent, sum(one["size"] for one in files))
        with atomic.folder(target, durable=False) as part:
            for one in files:
                path = inside(part, one["path"])
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as out:
                    async for piece in (await obstore.get_async(store, one["path"])).stream(min_chunk_size=CHUNK_BYTES):
                        progress.arrived(len(piece))
                        out.write(piece)
    return target


def _open(uri: str, limits: Limits) -> ObjectStore:
    from obstore.store import from_url

    # This limit is for a whole request with its body; `progress` ends a stalled transfer.
    options: ClientConfig = {
        "allow_http": True,  # if the configured endpoint is http
        "connect_timeout": timedelta(seconds=limits.stall_seconds),
        "timeout": timedelta(seconds=limits.total_seconds),
    }
    return from_url(uri, client_options=options)


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Translates the errors of the store."""
    try:
        yield
    except AccordError:
        raise
    except ImportError as error:
        raise FailedPrecondition(
            f"{uri} needs a package that is not installed: {error}; pip install 'accord-rlhf[s3]'",
            reason="MISSING_EXTRA",
        ) from error
    except Exception as error:
        # The message comes first, followed by pages of internal state.
        said = str(error).partition("\n\nDebug source")[0]
        # A failed listing has no specific error class, only the status.
        kind, status = type(error).__name__, _STATUS.search(said)
        if kind == "NotFoundError" or (status and status[1] == "404"):
            raise _nothing(uri) from error
        if kind in ("PermissionDeniedError", "UnauthenticatedError") or (status and status[1] in ("401", "403")):
            raise PermissionDenied(f"no permission to read {uri}: {said}", reason="OBJECT_STORE") from error
        raise Unavailable(f"{uri} cannot be read: {said}", reason="OBJECT_STORE", metadata={"uri": uri}) from error


def _nothing(uri: str) -> NotFound:
    return NotFound(f"nothing found at {uri}. Was it freed?", reason="WEIGHTS_NOT_FOUND")
