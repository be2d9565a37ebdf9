"""Lets the tests of every folder import the helpers that lie here (``golden``, ``tiny``)."""

import torch

torch.set_num_threads(1)  # what the tests run is too small to share
