"""The packed container ``.acz``: an ONNX file entropy-coded, restored bit by bit."""
