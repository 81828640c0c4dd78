"""Jobs: what runs in a process of its own, how it is started and obeys signals."""
