"""The command line: parse, call one function, print.

Input is validated before jax is imported.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from ppo_jax.cli import guard
from ppo_jax.cli.answer import BAD_INPUT, FAILED, INTERRUPTED, Answer
from ppo_jax.cli.commands.table import COMMANDS
from ppo_jax.cli.overview import other_command, overview
from ppo_jax.config.errors import InputError, RunError
from ppo_jax.config.values import masked
from ppo_jax.runtime import signals
from ppo_jax.runtime.text import visible

HELP = ("-h", "--help", "--help-all", "help")
# A name that is too long, or names something else or nothing that this user may use.
_OF_A_NAME = (
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EEXIST),
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL, errno.ENXIO),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the words of the command; None for those of this process.
    """
    open_missing_streams()
    signals.owns_process = argv is None
    if argv is None and guard.has_hosts(sys.argv):
        code = guard.watched()
        if code is not None:
            return code
    code = _run(list(sys.argv[1:] if argv is None else argv))
    if argv is None and (code in (signals.STOPPED, INTERRUPTED) or signals.leaves_at_once):
        # A call into XLA may be left behind, and Python would wait for it or be ended by it.
        _flush()
        os._exit(code)
    return code


def open_missing_streams() -> None:
    """Open the null device in place of stdin, stdout and stderr that are closed (`2>&-`).

    Else the next file that is opened takes the place of a stream, and its content is mixed with
    what libraries print.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _run(words: list[str]) -> int:
    try:
        _check_words(words)
        return _print(_dispatch(words), "--json" in words)
    except KeyboardInterrupt:
        return _refuse("interrupted", words, INTERRUPTED)
    except signals.Stopped as error:
        return _refuse(str(error), words, error.exit_code)
    except InputError as error:
        return _refuse(str(error), words, BAD_INPUT)
    except RunError as error:
        return _refuse(str(error), words, FAILED)
    except SystemExit as error:  # nothing here raises it: a user's program did
        sentence = f"A program that was loaded ended the command with SystemExit({error.code!r}): "
        return _refuse(sentence + "take the call of exit out of it.", words, BAD_INPUT)
    except BrokenPipeError:  # `ppo-jax envs | head` closes the pipe
        _silence(sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.errno not in _OF_A_NAME:
            return _refuse(f"{error} (--debug shows where)", words, FAILED)
        place = "A file" if error.filename is None else repr(str(error.filename))
        sentence = f"{place} cannot be used ({error.strerror}): name another place."
        return _refuse(sentence, words, BAD_INPUT)
    except Exception as error:
        sentence = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        if _is_of_jaxs_settings(error):
            remedy = "correct or unset the environment variable JAX_... that it comes from."
            return _refuse(f"jax cannot start ({sentence}): {remedy}", words, BAD_INPUT)
        return _refuse(f"{sentence} (--debug shows where)", words, FAILED)


def _is_of_jaxs_settings(error: Exception) -> bool:
    """Check whether jax, as it was imported, refused the value of an environment variable."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    files = [Path(code.co_filename).parts[-3:] for code in codes]
    is_import = any(code.co_name == "<module>" for code in codes)
    return is_import and files[-1] == ("jax", "_src", "config.py")


def _check_words(words: Sequence[str]) -> None:
    """Refuse words that no file and no setting can bear."""
    for number, word in enumerate(words, 1):
        try:
            word.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise InputError(f"Word {number} holds half a character: write it anew.") from None
        if "\0" in word:
            raise InputError(f"Word {number} holds a zero byte: write it anew.")


def _print(answer: Answer, as_json: bool) -> int:
    if not signals.prints:  # the first host does
        return answer.exit_code
    text = json.dumps(answer.data, allow_nan=False) if as_json else visible("\n".join(answer.lines))
    coding = sys.stdout.encoding or "utf-8"  # a folder's name may have bytes that are no text
    try:
        print(text.encode(coding, "backslashreplace").decode(coding), flush=True)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        _silence(sys.stdout.fileno())  # the terminal is gone, and all is saved
    return answer.exit_code


def _silence(stream: int) -> None:
    """Let a stream that cannot be written end in the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def _refuse(sentence: str, words: Sequence[str], exit_code: int) -> int:
    sentence = visible(
        masked(" ".join(sentence.split()), is_sentence=True)
    )  # a user's module may raise many lines
    if "--debug" in words:
        traceback.print_exc()
    with contextlib.suppress(OSError):  # the exit code says it as well
        if "--json" in words:
            print(json.dumps({"error": sentence}), flush=True)
        else:
            print(f"ppo-jax: {sentence}", file=sys.stderr, flush=True)
    return exit_code


def _dispatch(words: Sequence[str]) -> Answer:
    name, rest = (words[0], words[1:]) if words else ("--help", [])
    if name in HELP and rest and rest[0] in COMMANDS:
        name, rest = rest[0], [*rest[1:], "--help"]
    if name in ("-V", "--version"):
        version = sys.modules["ppo_jax"].__version__  # importing this file imports the package
        return Answer({"version": version}, [f"ppo-jax {version}"])
    if name in HELP:
        return overview(COMMANDS)
    if name not in COMMANDS:
        raise InputError(
            f"{name!r} is no command.{other_command(name, COMMANDS)} All of them: ppo-jax help."
        )
    command = COMMANDS[name]
    parser = command.parser(rest)
    if {"-h", "--help", "--help-all"} & set(rest):
        text = parser.format_help().rstrip()
        return Answer({"help": text}, [text])
    flags, env_params = parser.read(rest)
    if env_params and not command.takes_env_params:
        raise InputError(f"--env.{next(iter(env_params))} is no option of `ppo-jax {name}`.")
    return command.run(flags, env_params)
