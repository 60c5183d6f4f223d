"""The loss of every layer under every setting, and cheap scores beside it."""
