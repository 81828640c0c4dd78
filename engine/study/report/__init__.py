"""Report of a study: evidence, claims and their verdicts, tables, figures."""
