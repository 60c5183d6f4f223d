"""Distillation: a network that is trained back learns from more than the labels."""
