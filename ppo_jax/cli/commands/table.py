"""The table of commands, in the order of the overview.

Each command has a file. It reads its flags, validates them before jax is imported, and calls one
function.
"""

from __future__ import annotations

from ppo_jax.cli.answer import Command
from ppo_jax.cli.commands import (
    bench,
    compare,
    completion,
    debug,
    diff,
    doctor,
    envs,
    evaluate,
    explain,
    export,
    presets,
    replay,
    report,
    reproduce,
    resume,
    runs,
    sweep,
    train,
    watch,
)

COMMANDS: dict[str, Command] = {
    module.COMMAND.name: module.COMMAND
    for module in (
        train,
        watch,
        evaluate,
        runs,
        diff,
        resume,
        sweep,
        replay,
        debug,
        export,
        explain,
        reproduce,
        report,
        compare,
        envs,
        presets,
        doctor,
        bench,
    )
}
COMMANDS["completion"] = completion.command(COMMANDS)
