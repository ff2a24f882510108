"""Shared by all tests: one thread for torch, so that two cores are not fought over."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
