"""Repair without training: better codes and biases for a quantised graph, from a few examples."""
