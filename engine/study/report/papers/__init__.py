"""The rules by which the papers' claims are decided."""
