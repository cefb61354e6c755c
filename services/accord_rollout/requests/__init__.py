"""A Generate request: checked, planned, admitted, answered."""
