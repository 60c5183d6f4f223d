"""Which channels matter least; one file per criterion."""
