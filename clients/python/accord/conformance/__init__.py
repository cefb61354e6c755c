"""Checks any implementation of accord.rollout.v1 against its contract: `accord conformance HOST:PORT`.

Imports only the SDK. A check is a small function in `checks/` that reaches the engine through `target.Target`. torch is
imported only to recompute logprobs.
"""
