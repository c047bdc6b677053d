"""The commands of the command line, a file each, in the order in which the overview lists them.

A command reads its flags and calls one function; what can be told without jax is told before jax is
imported.
"""

from __future__ import annotations

from ppo_jax.commands import doctor, envs, evaluate, explain, presets, train
from ppo_jax.commands.interface import Command

COMMANDS: dict[str, Command] = {
    module.COMMAND.name: module.COMMAND
    for module in (train, evaluate, explain, envs, presets, doctor)
}
