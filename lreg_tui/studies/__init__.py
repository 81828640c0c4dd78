"""Studies: their list, the grid of one's runs, its report; started, steered and scheduled."""
