"""What people say about answers, as values: judgements, canonical forms, pairwise choices."""
