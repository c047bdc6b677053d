"""Kernels written by hand in Pallas, each beside its plain form. Training does not use them."""
