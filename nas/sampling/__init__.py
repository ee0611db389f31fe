"""Samplers: which candidate is tried next. All of them draw whole candidates that are within every limit and new to the study."""
