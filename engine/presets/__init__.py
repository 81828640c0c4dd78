"""Presets: TOML, layers and --set, the schema of every table, checking."""
