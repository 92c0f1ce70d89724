"""The laws run on one thread, so that their numbers and their times do not depend on who else uses the machine."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
