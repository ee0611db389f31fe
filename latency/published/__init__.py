"""Targets without the device: latency models fitted to published figures, and the figures themselves as plain data."""
