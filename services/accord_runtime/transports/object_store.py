"""`s3://`, `gs://`, `az://`, ...: a prefix in an object store, through fsspec. Extra: `s3`, or fsspec's own for others.

Endpoint, credentials and timeouts are fsspec's configuration: FSSPEC_S3_ENDPOINT_URL, FSSPEC_S3='{...}', or the store's
own environment (AWS_ACCESS_KEY_ID, ...).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from accord.errors import AccordError, FailedPrecondition, NotFound, PermissionDenied, Unavailable
from accord_runtime import atomic
from accord_runtime.paths import inside
from accord_runtime.transfer import Progress

# Progress is seen piece by piece: a larger one would make a slow link look stalled.
CHUNK_BYTES = 4 * 2**20


async def fetch(uri: str, target: Path, progress: Progress) -> Path:
    """Copies what lies below the prefix, then moves the complete folder into place.

    NotFound/WEIGHTS_NOT_FOUND, PermissionDenied, Unavailable/OBJECT_STORE, FailedPrecondition/MISSING_EXTRA.
    """
    with atomic.folder(target, durable=False) as part:
        await asyncio.to_thread(_copy, uri, part, progress)
    return target


def _copy(uri: str, folder: Path, progress: Progress) -> None:
    try:
        files, root, store = _list(uri)
        atomic.require_space(folder, sum(int(info["size"]) for info in files.values()))
        for name in files:
            path = inside(folder, name[len(root) :].strip("/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without fsspec's read-ahead: each piece is one request and one copy.
            with store.open(name, "rb", cache_type="none", block_size=CHUNK_BYTES) as source, path.open("wb") as out:
                while data := source.read(CHUNK_BYTES):
                    progress.arrived(len(data))
                    out.write(data)
    except AccordError:
        raise
    except ImportError as error:
        raise FailedPrecondition(
            f"{uri} needs a package that is not installed: {error}; pip install 'accord-rlhf[s3]'",
            reason="MISSING_EXTRA",
        ) from error
    except FileNotFoundError as error:
        raise _nothing(uri) from error
    except PermissionError as error:
        raise PermissionDenied(f"{uri} may not be read: {error}", reason="OBJECT_STORE") from error
    except Exception as error:  # each store's client has errors of its own
        raise Unavailable(
            f"{uri} cannot be read: {type(error).__name__}: {error}", reason="OBJECT_STORE", metadata={"uri": uri}
        ) from error


def _list(uri: str) -> tuple[dict[str, Any], str, Any]:
    """Files below the prefix with what is known of each, the prefix as the store writes it, the store."""
    import fsspec

    # A listing kept from before would show what was there then.
    store, root = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    files = store.find(root, detail=True)
    if not files:
        raise _nothing(uri)
    return files, root, store


def _nothing(uri: str) -> NotFound:
    return NotFound(f"there is nothing at {uri}; was it freed?", reason="WEIGHTS_NOT_FOUND")
