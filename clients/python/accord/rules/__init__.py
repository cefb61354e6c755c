"""The rules of the contracts for fields: which fields must be set, and the limits of their values.

A contract states a rule once, as a field option. The services check requests by it, the SDK can check before sending,
and the custom resource definition and the reference documentation repeat it.
"""
