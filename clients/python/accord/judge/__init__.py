"""Language models as annotators: of kind MODEL, never mixed up with people.

`model.py` is the seam, `endpoint.py` and `policy.py` implement it, `verdict.py` is what is asked and how answers are
read, `annotating.py` works through a queue of tasks.
"""
