"""Study: arms x points of their axes x meta-seeds, each an ordinary run; transfers of the winners; a report."""
