"""Presets: edited as a form and as TOML, checked, compared, saved, and launched as a run."""
