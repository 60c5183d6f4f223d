"""Devices that are elsewhere: what runs on them, how it gets there, and what comes back."""
