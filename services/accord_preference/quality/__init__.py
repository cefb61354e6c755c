"""Agreement, reliability and drift of annotators."""
