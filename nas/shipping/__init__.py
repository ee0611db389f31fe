"""Files to ship: what `nas export` writes besides float32 ONNX, each run beside the checkpoint before it is written."""
