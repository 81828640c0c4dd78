"""Export: a run's learned optimizer and figures in forms that other tools read."""
