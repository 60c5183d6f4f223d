"""How weights are stored: one form a file; the exporter writes what a form gives."""
