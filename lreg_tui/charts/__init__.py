"""Charts of text cells, as pictures and as widgets."""
