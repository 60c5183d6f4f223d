"""Plain values and protocols; imports no torch, optuna, ray or onnxruntime."""
