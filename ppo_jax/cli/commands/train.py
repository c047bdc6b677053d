"""`ppo-jax train ENV`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ppo_jax.cli.answer import Answer, Command
from ppo_jax.cli.parser import Parser
from ppo_jax.cli.settings import add_setting_flags, as_file, find_settings, source_of
from ppo_jax.cli.trust import find_trust
from ppo_jax.config import layers
from ppo_jax.config.config import Config, Hyper
from ppo_jax.config.options import RunOptions, has_hosts, validate_options
from ppo_jax.config.validate import validate
from ppo_jax.envs import registration
from ppo_jax.runtime import signals
from ppo_jax.runtime.text import plan_lines, summary_lines


def _add_flags(parser: Parser, words: Sequence[str]) -> None:
    env = next((word for word in words if not word.startswith("-")), None)
    parser.add_argument("env", nargs="?", metavar="ENV", help="`ppo-jax envs`, or module:attribute")
    objectives = [word.partition("=")[2] for word in words if word.startswith("--objective=")]
    objectives += [after for word, after in pairwise(words) if word == "--objective"]
    add_setting_flags(parser, env, next(iter(objectives), None), (Config, Hyper, RunOptions))
    group = parser.add_argument_group("without training")
    text = "print all settings as a TOML file for --config, train nothing"
    parser.add_switch(group, "--print-config", text)


def _run(flags: dict[str, Any], env_params: dict[str, str]) -> Answer:
    settings = find_settings(flags, env_params)
    config, hyper, options, _ = settings
    validate(config, hyper)
    validate_options(options)
    registration.check_name(config.env)
    if "print_config" in flags:
        from ppo_jax.storage.files import to_json

        title = f"ppo-jax train --config FILE; settings: {source_of(settings)}"
        data = {name: vars(part) for name, part in zip(layers.FILE_TABLES, settings[:3])}
        return Answer({"settings": to_json(data)}, as_file(settings, title))
    from ppo_jax.storage import run_folder

    resumes = options.resume == "auto" and options.out and run_folder.is_run(options.out)
    if not resumes and not has_hosts(options):  # the first host may have made it by now
        run_folder.check_new_folder(options.out)
    from ppo_jax.runtime.progress import display

    sizes = (config.num_iterations, config.trained_env_steps, options.seeds)
    # From here on, because importing jax takes seconds.
    with signals.listening(), display(*sizes, options.quiet or bool(options.host_index)) as screen:
        source = source_of(settings)
        if registration.is_ready(config.env) and not hyper.env:  # else it may be refused yet
            screen.plan(plan_lines(config.env, config, options.seeds, source))
        from ppo_jax.apps.run import runner

        trust = find_trust(flags)
        result = runner.run(config, hyper, options, source=source, screen=screen, trust=trust)
    return Answer(result.summary, summary_lines(result.summary), result.exit_code)


COMMAND = Command(
    "train", "ENV", "train on an environment, evaluate, save", _run, _add_flags, True, True
)
