"""Search, training, trimming and shipping of networks within a latency budget."""

import latency as _latency  # noqa: F401  (turns ONNX Runtime's telemetry off before anything here can load it)
