"""The timing protocol, and figures taken with it."""
