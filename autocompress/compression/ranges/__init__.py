"""How the range of a quantised tensor is chosen from values that were seen: a file a method."""
