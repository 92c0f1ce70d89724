"""The laws run on one thread, so that their numbers and their times do not depend on who else uses the machine. `OMP_NUM_THREADS` asks for
another number."""

from __future__ import annotations

import os

import torch

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
