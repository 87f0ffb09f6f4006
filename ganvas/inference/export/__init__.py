"""Export to other runtimes: ONNX and torch.export programs."""
