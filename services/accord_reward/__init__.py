"""The reward service: scores (prompt, response) pairs with reward models, rules, your own functions, and mixtures.

`scorer.py` is the seam (entry points of group `accord.scorers`), `handler.py` the logic of the service, `servicer.py`
the adapter to gRPC.
"""
