"""For plug-in authors: contract tests to inherit, and fakes with known optima."""
