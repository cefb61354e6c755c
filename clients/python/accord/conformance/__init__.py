"""Holds any implementation of accord.rollout.v1 to its contract: `accord conformance HOST:PORT`.

Imports the SDK only. A check is a small function in `checks/`; it knows the engine through `target.Target` and nothing
of who runs it. torch is imported only where a reference for logprobs is asked for.
"""
