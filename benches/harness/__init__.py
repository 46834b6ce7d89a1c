"""What every question shares: the contenders, the shape of a question, /proc, the report."""
