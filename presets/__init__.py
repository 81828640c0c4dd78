"""Shipped presets: one TOML file each."""
