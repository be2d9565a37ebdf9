"""Entries of the place table proposed for models that it does not know."""

from .proposal import Proposal, propose

__all__ = ['Proposal', 'propose']
