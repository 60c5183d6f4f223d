"""Benchmarks with one contract: a table for people, then one line ``RESULT {json}``."""
