"""Transfer evaluations: what is asked for, its jobs, and the screen that starts and watches them."""
