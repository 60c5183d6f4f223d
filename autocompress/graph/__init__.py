"""Capture of any ``nn.Module``: layers, shapes, channel groups, blocks, and what is left alone."""
