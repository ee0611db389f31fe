"""Latency: measuring networks on devices and predicting what was measured."""

import os

# From 1.29 on ONNX Runtime reports to its maker, from threads of its own, unless told not to before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
