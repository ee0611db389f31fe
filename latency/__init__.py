"""Latency: measuring networks on devices and predicting what was measured."""
