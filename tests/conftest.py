"""Settings of the whole suite: property tests have no deadline, since nothing here asserts wall-clock time."""

from hypothesis import settings

settings.register_profile("pocketnas", deadline=None)
settings.load_profile("pocketnas")
