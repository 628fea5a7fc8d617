"""A NIR graph as an ONNX model, and its run in onnxruntime."""
