"""From sentences to the integers a model reads, the same way here and where it is deployed."""
