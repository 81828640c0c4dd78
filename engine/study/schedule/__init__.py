"""Schedule of a study: what runs next, on this machine or on Slurm."""
