"""Lets the tests of every folder import the helpers that lie here (``golden``, ``tiny``)."""

import os

os.environ.setdefault('CUDA_VISIBLE_DEVICES', '')  # what is expected is what the CPU computes

import torch

torch.set_num_threads(1)  # what the tests run is too small to share
