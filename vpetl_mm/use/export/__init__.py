"""Files that run without this package: ONNX, torch.export, and plain models of the host libraries."""
