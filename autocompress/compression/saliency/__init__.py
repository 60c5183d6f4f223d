"""Which weights matter least; one file per criterion."""
