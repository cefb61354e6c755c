"""The checks in the order in which they run: those that generate first, those that change the weights last."""

from accord.conformance.checks import answering, sampling, refusing, sharing, updating  # noqa: I001  the order matters

__all__ = ["answering", "refusing", "sampling", "sharing", "updating"]
