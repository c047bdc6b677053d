"""The command line: parse, call one function, print. Nothing is decided here.

Everything that can be told without jax is told before jax is imported.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ppo_jax import envs, flags, presets, settings
from ppo_jax.config import InputError, nearest, validate
from ppo_jax.options import POLICY_MODES, validate_options
from ppo_jax.settings import Layer, Settings
from ppo_jax.wording import score, summary_lines

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


class Answer(NamedTuple):
    """What a command has to say."""

    data: dict[str, Any]  # --json
    lines: list[str]  # for people
    exit_code: int = 0


class Command(NamedTuple):
    summary: str
    usage: str  # its own argument
    parser: Callable[[Sequence[str]], flags.Parser]  # the words matter for the help only
    run: Callable[[dict[str, Any], dict[str, str]], Answer]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _print(_dispatch(words), "--json" in words)
    except KeyboardInterrupt:
        return _refuse("interrupted", words, INTERRUPTED)
    except InputError as error:
        return _refuse(str(error), words, BAD_INPUT)
    except BrokenPipeError:  # `ppo-jax envs | head`: nobody listens any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        sentence = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return _refuse(f"{sentence} (--debug shows where)", words, FAILED)


def _print(answer: Answer, as_json: bool) -> int:
    if as_json:
        print(json.dumps(answer.data, allow_nan=False))
    else:
        print("\n".join(answer.lines))
    sys.stdout.flush()
    return answer.exit_code


def _refuse(sentence: str, words: Sequence[str], exit_code: int) -> int:
    sentence = " ".join(sentence.split())  # a user's module may fail with many lines
    if "--debug" in words:
        traceback.print_exc()
    if "--json" in words:
        print(json.dumps({"error": sentence}), flush=True)
    else:
        print(f"ppo-jax: {sentence}", file=sys.stderr)
    return exit_code


def _dispatch(words: Sequence[str]) -> Answer:
    name, rest = (words[0], words[1:]) if words else ("--help", [])
    if name == "--version":
        version = sys.modules["ppo_jax"].__version__  # of the package that holds this file
        return Answer({"version": version}, [f"ppo-jax {version}"])
    if name in ("-h", "--help", "help"):
        return _overview()
    if name not in COMMANDS:
        raise InputError(
            f"{name!r} is no command: there are {', '.join(COMMANDS)}.{nearest(name, COMMANDS)}"
        )
    command = COMMANDS[name]
    parser = command.parser(rest)
    if "-h" in rest or "--help" in rest:
        text = parser.format_help().rstrip()
        return Answer({"help": text}, [text])
    given, env_params = parser.read(rest)
    if env_params and name != "train":
        raise InputError(f"--env.{next(iter(env_params))} is no option of `ppo-jax {name}`.")
    return command.run(given, env_params)


def _overview() -> Answer:
    lines = ["Policy gradients in JAX: train, look, compare.", ""]
    lines += [
        f"  ppo-jax {f'{name} {each.usage}'.strip():<12} {each.summary}"
        for name, each in COMMANDS.items()
    ]
    lines += ["", "`ppo-jax COMMAND --help` has the options; `ppo-jax --version` the version."]
    return Answer({"commands": {name: each.summary for name, each in COMMANDS.items()}}, lines)


# --- train ---------------------------------------------------------------------------------------


def _train_parser(words: Sequence[str]) -> flags.Parser:
    parser = _parser("train")
    env = next((word for word in words if not word.startswith("-")), None)
    parser.add_argument("env", nargs="?", metavar="ENV", help="`ppo-jax envs`, or module:attribute")
    sources = parser.add_argument_group("where settings come from (flag > config > preset)")
    parser.add_value(sources, "--preset", "a preset's name or FILE.toml [ENV's own]", "NAME")
    parser.add_switch(sources, "--no-preset", "start from the defaults alone")
    parser.add_value(sources, "--config", "settings from a JSON or TOML file", "FILE")
    preset = presets.load(env) if env else None
    shown = settings.resolve([presets.layer(preset)] if preset else [])
    values = {**vars(shown.config), **vars(shown.hyper), **vars(shown.options)}
    flags.add_field_flags(parser, values, shown.sources)
    _add_output_flags(parser)
    return parser


def _train(given: dict[str, Any], env_params: dict[str, str]) -> Answer:
    chosen = _settings(given, env_params)
    validate(chosen.config, chosen.hyper)
    validate_options(chosen.options)
    envs.check_name(chosen.config.env)
    from ppo_jax import run_folder

    run_folder.check(chosen.options.out)
    used = {source for source in chosen.sources.values() if source != "flag"}
    source = ", ".join(sorted(used)) or "defaults (no preset)"
    from ppo_jax import runner

    result = runner.run(chosen.config, chosen.hyper, chosen.options, source=source)
    return Answer(result.summary, summary_lines(result.summary), result.exit_code)


def _settings(given: Mapping[str, Any], env_params: Mapping[str, str]) -> Settings:
    """Flag over file over preset over default."""
    if "preset" in given and "no_preset" in given:
        raise InputError("--preset and --no-preset exclude each other: give one of them.")
    own = {name: value for name, value in given.items() if name in settings.FIELDS}
    layers = [Layer("flag", own, env_params)]
    if "config" in given:
        layers.insert(0, _config_layer(given["config"]))
    named = settings.resolve(layers)
    if "env" not in named.sources:
        raise InputError("train needs an environment, for example: ppo-jax train CartPole-v1.")
    env, objective = named.config.env, named.config.objective
    if "preset" in given:
        layers.insert(0, presets.layer(presets.find(given["preset"], objective)))
    elif "no_preset" not in given:
        preset = presets.load(env, objective)
        layers = ([presets.layer(preset)] if preset else []) + layers
    return settings.resolve(layers)


def _config_layer(name: str) -> Layer:
    import tomllib

    try:
        text = Path(name).read_text("utf-8")
        content = tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
    except OSError as error:
        raise InputError(
            f"--config {name!r} cannot be read: {error.strerror}; name a JSON or TOML file."
        ) from None
    except ValueError as error:
        raise InputError(f"--config {name!r} is neither JSON nor TOML: {error}.") from None
    if not isinstance(content, dict):
        raise InputError(f"--config {name!r} must hold settings by name, not a bare value.")
    layer = settings.file_layer(name, content)
    if "format" in content:  # a run's own record: its folder is taken
        return layer._replace(values={k: v for k, v in layer.values.items() if k != "out"})
    return layer


# --- eval, envs, presets, doctor -----------------------------------------------------------------


def _eval_parser(words: Sequence[str]) -> flags.Parser:
    parser = _parser("eval")
    parser.add_argument("run", nargs="?", metavar="RUN", help="a run's folder")
    group = parser.add_argument_group("evaluation")
    parser.add_value(group, "--episodes", "whole episodes of each seed [default: 128]", "N")
    modes = f"{' | '.join(POLICY_MODES)} [default: {POLICY_MODES[0]}]"
    parser.add_value(group, "--policy-mode", modes, "NAME")
    parser.add_value(group, "--seed", "of the random numbers [default: as after training]", "N")
    parser.add_value(group, "--video", "draw one episode into FILE.gif or FILE.mp4", "FILE")
    _add_output_flags(parser)
    return parser


def _eval(given: dict[str, Any], _: dict[str, str]) -> Answer:
    if "run" not in given:
        raise InputError("eval needs a run's folder, for example: ppo-jax eval runs/my-run.")
    run_folder = Path(given["run"])
    if not (run_folder / "config.json").is_file():
        beside = [path.parent.as_posix() for path in run_folder.parent.glob("*/config.json")]
        raise InputError(
            f"{given['run']!r} is no run's folder (there is no config.json in it)."
            + nearest(run_folder.as_posix(), beside)
        )
    texts = {name: given[name] for name in ("policy_mode", "seed") if name in given}
    if "episodes" in given:
        texts["eval_episodes"] = given["episodes"]
    options = settings.resolve([Layer("flag", texts, {})]).options
    validate_options(options)
    video = given.get("video")
    if video is not None and not video.lower().endswith((".gif", ".mp4")):
        raise InputError(f"video={video!r} must end in .gif or .mp4.")
    from ppo_jax import evaluating

    summary = evaluating.evaluate(
        run_folder,
        episodes=options.eval_episodes,
        policy_mode=options.policy_mode,
        seed=options.seed if "seed" in given else None,
        video=video,
    )
    return Answer(summary, summary_lines(summary))


def _envs(given: dict[str, Any], _: dict[str, str]) -> Answer:
    tuned = {preset.env for preset in presets.all_presets()}
    rows = [{**row._asdict(), "preset": row.name in tuned} for row in envs.available()]
    lines = []
    for row in rows:
        shape = row["observation_shape"]
        size = "" if shape is None else "x".join(map(str, shape)) or "scalar"
        note = "; ".join(part for part in ("preset" if row["preset"] else "", row["note"]) if part)
        lines.append(f"{row['name']:<36}{row['action_space']:<26}{size:<12}{note}".rstrip())
    return Answer({"envs": rows}, lines)


def _presets(given: dict[str, Any], _: dict[str, str]) -> Answer:
    rows = presets.all_presets()
    lines = [f"{'preset':<28}{'objective':<12}{'measured':<24}published"]
    for row in rows:
        columns = f"{row.name:<28}{row.objective:<12}{score(row.score):<24}"
        lines.append(f"{columns}{score(row.reference)}")
    lines += ["", "Returns at environment steps of one seed; --json has settings and sources."]
    return Answer({"presets": [row._asdict() for row in rows]}, lines)


def _doctor(given: dict[str, Any], _: dict[str, str]) -> Answer:
    from ppo_jax import doctor

    report = doctor.report(given.get("env"))
    return Answer(report, list(report["text"]), 0 if report.get("ok", True) else FAILED)


def _explain_parser(words: Sequence[str]) -> flags.Parser:
    parser = _parser("explain")
    parser.add_argument("question", nargs="?", metavar="surrogate", help="why the ratio?")
    group = parser.add_argument_group("experiment")
    parser.add_value(group, "--environment", "where to train [default: CartPole-v1]", "ENV")
    parser.add_value(group, "--seeds", "per cell [default: 16]", "N")
    parser.add_value(group, "--total-env-steps", "per seed and cell [default: 60000]", "N")
    parser.add_value(group, "--epochs", "steps on each batch [default: 1,2,4,8,16,32]", "N,N,...")
    parser.add_value(group, "--out", "folder for numbers and pictures [default: explain]", "DIR")
    _add_output_flags(parser)
    return parser


def _explain(given: dict[str, Any], _: dict[str, str]) -> Answer:
    if given.get("question") != "surrogate":
        raise InputError("explain answers one question: ppo-jax explain surrogate.")
    numbers: dict[str, Any] = {
        name: settings.whole_number(name, given[name])
        for name in ("seeds", "total_env_steps")
        if name in given
    }
    if "epochs" in given:
        numbers["epochs"] = [settings.whole_number("epochs", e) for e in given["epochs"].split(",")]
    env = given.get("environment", "CartPole-v1")
    envs.check_name(env)
    from ppo_jax import explain

    result = explain.surrogate(
        env,
        **numbers,
        out=given.get("out", "explain"),
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    return Answer(result, ["", *result["text"], "", f"figure    {result['figure']}"])


def _plain_parser(name: str, argument: str | None = None) -> Callable[..., flags.Parser]:
    def build(words: Sequence[str]) -> flags.Parser:
        parser = _parser(name)
        if argument:
            parser.add_argument("env", nargs="?", metavar=argument, help="an environment to check")
        _add_output_flags(parser)
        return parser

    return build


def _parser(name: str) -> flags.Parser:
    command = COMMANDS[name]
    return flags.Parser(f"ppo-jax {name}", command.usage, command.summary)


def _add_output_flags(parser: flags.Parser) -> None:
    group = parser.add_argument_group("output")
    parser.add_switch(group, "--json", "one JSON object on stdout, progress on stderr")
    parser.add_switch(group, "--debug", "show the traceback of an error")
    parser.add_switch(group, "--help", "this text")


COMMANDS: dict[str, Command] = {
    "train": Command("train on an environment, evaluate, save", "ENV", _train_parser, _train),
    "eval": Command("evaluate a trained run", "RUN", _eval_parser, _eval),
    "explain": Command(
        "why the ratio? answered by experiment", "surrogate", _explain_parser, _explain
    ),
    "envs": Command("list the environments", "", _plain_parser("envs"), _envs),
    "presets": Command("list the tuned settings", "", _plain_parser("presets"), _presets),
    "doctor": Command(
        "what this machine has; whether ENV keeps the contract",
        "[ENV]",
        _plain_parser("doctor", "ENV"),
        _doctor,
    ),
}
