"""One file per stage; each has ``run(context)`` and does only what is missing."""
