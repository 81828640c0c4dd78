"""Plan of a study: its file, arms, axes, search, and the state of its runs."""
