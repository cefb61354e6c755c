"""Digests, as the client defines them: what a service publishes is what the SDK verifies."""

from __future__ import annotations

from accord.digest import content_digest as content_digest
from accord.digest import file_digest as file_digest
from accord.digest import weights_digest as weights_digest

__all__ = ["content_digest", "file_digest", "weights_digest"]
