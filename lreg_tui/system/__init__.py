"""What this process stands on: its streams, its terminal, other processes, the machine, the user's state folder."""
