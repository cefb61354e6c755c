"""Language models as annotators. Their kind is MODEL, so they are never mistaken for people.

`model.py` is the seam; `endpoint.py` and `policy.py` implement it. `verdict.py` has the questions and reads the
replies; `annotating.py` works through a queue of tasks.
"""
