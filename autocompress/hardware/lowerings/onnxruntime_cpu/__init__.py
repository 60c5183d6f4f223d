"""ONNX Runtime's CPU provider: fusion, blocked channels, channels last."""
