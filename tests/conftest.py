"""Lets the tests of every folder import the helpers that lie here (``golden``, ``tiny``)."""
