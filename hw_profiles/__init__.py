"""Built-in hardware profiles: one folder per device, ``profile.toml`` and ``latency.csv``."""
