"""``autocompress devices …``: one file a command."""
