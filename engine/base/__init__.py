"""Base: errors, seeds, flat vectors, devices, settings, registries, files, signals: what everything stands on."""
