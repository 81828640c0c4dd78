"""Text for people: numbers, states, logs and tables of text, all of it harmless to print."""
