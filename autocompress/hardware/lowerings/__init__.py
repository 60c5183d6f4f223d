"""From a candidate's operations to the kernels that a runtime executes: one package a runtime."""
