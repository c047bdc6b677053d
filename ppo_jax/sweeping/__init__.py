"""Sweeps: settings x seeds on the population axis of one compiled program."""
