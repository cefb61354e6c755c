"""The reward service: scores (prompt, response) pairs with reward models, rules, your own functions, and mixtures.

`scorer.py` is the seam (entry points of group `accord.scorers`), `handler.py` what the service does, `servicer.py` the
adapter to gRPC.
"""
