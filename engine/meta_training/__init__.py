"""Meta-training: unroll, meta-gradient, meta-step, curriculum, validation."""
