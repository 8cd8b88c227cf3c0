"""Networks in tests are tiny: one thread does them faster than two that wait for each other."""
import torch

torch.set_num_threads(1)
