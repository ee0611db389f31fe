"""Settings of the whole suite: property tests have no deadline, and torch one thread in each of the suite's processes.

Nothing here asserts wall-clock time; several threads in each of several processes would only wait for one another.
"""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, here and in what tests start
settings.register_profile("pocketnas", deadline=None)
settings.load_profile("pocketnas")
