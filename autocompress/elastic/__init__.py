"""One set of shared weights that runs as any candidate of a space."""
