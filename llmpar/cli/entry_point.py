"""A command's life: arguments to options, errors to exit codes, signals."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import click

from llmpar import exit_codes, records
from llmpar.cli.help import Command, Renamed, show_all
from llmpar.cli.messages import say
from llmpar.failure import Failure

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class Terminated(BaseException):
    """SIGTERM arrived; unwinds like KeyboardInterrupt so that `finally` clauses run."""


def command(
    name: str, renamed: Renamed | None = None, common: Sequence[str] = (), **kwargs: Any
) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    """Make a click command of a function and wrap it into an entry point that maps every end to an exit code.

    The function returns an exit code or None for 0. The click command is kept as `.command` for help and man pages.
    `renamed` has the spellings of earlier releases; `common` names the options that `--help` shows, where not all.
    """

    def wrap(function: Callable[..., Any]) -> Callable[[], None]:
        made = click.command(name=name, cls=Command, context_settings=CONTEXT, **kwargs)(function)
        made.renamed, made.common = renamed or {}, tuple(common)
        made = click.option(
            "--help-all",
            is_flag=True,
            is_eager=True,
            expose_value=False,
            hidden=not common,
            callback=show_all,
            help="Show every option, what is read and what is written, and exit.",
        )(made)
        made = click.version_option(version(), "--version", prog_name=name, message="%(prog)s %(version)s")(made)

        def main() -> None:
            sys.exit(run(name, made))

        main.command = made  # type: ignore[attr-defined]
        main.__doc__ = function.__doc__
        return main

    return wrap


def run(name: str, made: click.Command, arguments: list[str] | None = None) -> int:
    """Run a click command and return its exit code; messages go to stderr, never a traceback unless
    LLMPAR_LOG=debug."""

    def terminate(number: int, frame: Any) -> None:
        raise Terminated

    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, terminate)
    completion = completion_variable(name)
    if asked := os.environ.get(completion):
        from click.shell_completion import shell_complete

        return shell_complete(made, {}, name, completion, asked)
    try:
        # Not made.main(): that turns a closed reader into exit 1.
        with made.make_context(name, list(sys.argv[1:] if arguments is None else arguments)) as context:
            result = made.invoke(context)
        flush()
        return result if isinstance(result, int) else exit_codes.OK
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.exceptions.Abort:
        return exit_codes.INTERRUPTED
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except Terminated:
        return exit_codes.TERMINATED
    except click.ClickException as error:
        error.show()
        return exit_codes.USAGE
    except records.BadRecord as error:
        say(name, str(error))
        return exit_codes.BAD_INPUT
    except Failure as error:
        say(name, error.message, error.hint)
        return error.code
    except BrokenPipeError:
        # The reader left (`| head`): not a fault. Keep the interpreter from flushing into the closed pipe again.
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        return exit_codes.OK
    except OSError as error:
        if os.environ.get("LLMPAR_LOG") == "debug":
            raise
        say(name, f"'{error.filename}': {error.strerror}" if error.filename else str(error))
        return exit_codes.UNEXPECTED
    except MemoryError:
        say(name, "not enough memory for what was given", "give it less at once, or more memory")
        return exit_codes.UNEXPECTED
    except Exception as error:
        if os.environ.get("LLMPAR_LOG") == "debug":
            raise
        say(name, f"unexpected {type(error).__name__}: {error}", "run again with LLMPAR_LOG=debug to see where")
        return exit_codes.UNEXPECTED


def completion_variable(name: str) -> str:
    """What a shell sets to ask a command for completions: `_LLMPAR_PICK_COMPLETE`."""
    return f"_{name.replace('-', '_').upper()}_COMPLETE"


def version() -> str:
    """The installed version, or the one of the checkout."""
    try:
        return metadata.version("llmpar")
    except metadata.PackageNotFoundError:
        return "0+checkout"


def flush() -> None:
    sys.stdout.flush()
