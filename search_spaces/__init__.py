"""Built-in search spaces: one module per family; the file name is the lookup name."""
