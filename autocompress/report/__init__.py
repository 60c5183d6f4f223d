"""Reads run folders and shows them: the HTML report, the tables, the live display.

Nothing here computes a result: every figure comes from a file of the run folder.
"""
