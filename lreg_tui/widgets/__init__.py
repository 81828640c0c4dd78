"""What several features' screens are made of: lists, lines to type, questions, tables of text, themes, threads."""
