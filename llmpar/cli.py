"""What the commands share: option bundles, opening streams, errors to exit codes, signals."""

from __future__ import annotations

import contextlib
import glob
import math
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any, BinaryIO

import click

from llmpar import exit_codes, parts, records
from llmpar.failure import Failure
from llmpar.outside import printable, printable_words

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class Terminated(BaseException):
    """SIGTERM arrived; unwinds like KeyboardInterrupt so that `finally` clauses run."""


# An option's old spelling: the option that replaced it, and how its value is converted (None: it is kept as it is).
Renamed = Mapping[str, tuple[str, Callable[[str], str] | None]]


class Command(click.Command):
    """A command that still takes the option spellings of earlier releases, with a warning for each."""

    renamed: Renamed = {}

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, current_spelling(args, self.renamed, str(self.name)))


def current_spelling(args: list[str], renamed: Renamed, name: str) -> list[str]:
    """The arguments with options spelled as they are today. An old option counts only where a value follows it, so that
    an old `--version VALUE` can live beside `--version`; words after `--` belong to another command.
    """
    end = args.index("--") if "--" in args else len(args)
    spelled: list[str] = []
    position = 0
    while position < end:
        option, equals, value = args[position].partition("=")
        position += 1
        takes_next = not equals and position < end and not args[position].startswith("-")
        if option not in renamed or not (equals or takes_next):
            spelled.append(args[position - 1])
            continue
        if takes_next:
            value = args[position]
            position += 1
        current, convert = renamed[option]
        say(name, f"{option} is now {current}; the old spelling will go in a later release")
        with contextlib.suppress(ValueError, ZeroDivisionError):  # click refuses the value in its own words
            value = convert(value) if convert else value
        spelled += [current, value]
    return spelled + args[end:]


def command(
    name: str, renamed: Renamed | None = None, **kwargs: Any
) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    """Make a click command of a function and wrap it into an entry point that maps every end to an exit code.

    The function returns an exit code or None for 0. The click command is kept as `.command` for help and man pages.
    `renamed` has the spellings of earlier releases.
    """

    def wrap(function: Callable[..., Any]) -> Callable[[], None]:
        made = click.command(name=name, cls=Command, context_settings=CONTEXT, **kwargs)(function)
        made.renamed = renamed or {}
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


def say(name: str, message: str, hint: str | None = None) -> None:
    """A message on stderr as `name: message`, with what to try on a line of its own."""
    # A line of progress may stand there; it is drawn again below.
    clear = "\r\x1b[2K" if os.environ.get("LLMPAR_PROGRESS") and sys.stderr.isatty() else ""
    text = f"{clear}{name}: {_lines(message)}\n"
    if hint:
        text += f"  {_lines(hint)}\n"
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def assignments(variables: Mapping[str, Any]) -> str:
    """Lines for a shell's eval, values quoted: yes and no for booleans, an empty string for what is unknown. A name
    that is none in a shell is left out: it came with somebody's record.
    """
    words = {True: "yes", False: "no", None: ""}
    lines = []
    for name, value in variables.items():
        if not (name.isascii() and name.isidentifier()):
            continue
        text = words[value] if isinstance(value, bool | None) else str(value)
        lines.append(f"{name}={shlex.quote(text)}\n")
    return "".join(lines)


def _lines(message: str) -> str:
    """Our own messages may have several lines; nothing in them may drive a terminal."""
    return "\n".join([printable(line) for line in message.split("\n")])


def flush() -> None:
    sys.stdout.flush()


sampling_output = click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(),
    help="Append samples to FILE as they are taken. Default: standard output; with COMMAND the file named above.",
)


def sampling_interval(default: float) -> Callable[[Any], Any]:
    """--interval of a sampler."""
    return click.option(
        "--interval",
        metavar="S",
        type=click.FloatRange(min=0.01),
        default=default,
        show_default=True,
        help="Seconds from sample to sample, on absolute deadlines.",
    )


sampling_duration = click.option(
    "--duration",
    metavar="S",
    type=click.FloatRange(min=0, min_open=True),
    help="Without COMMAND: stop after this many seconds.",
)
INT64 = 2**63 - 1
MOST_SAID = 5  # records that are left out, each in words
certificates = click.option(
    "--ca",
    metavar="FILE",
    envvar="LLMPAR_CA_FILE",
    type=click.Path(),
    help="Certificates to trust for https, PEM.  [LLMPAR_CA_FILE; SSL_CERT_FILE, the system's]",
)
insecure = click.option(
    "--insecure", is_flag=True, envvar="LLMPAR_INSECURE", help="Trust any https server.  [LLMPAR_INSECURE=1]"
)


def verify(ca: str | None, insecure: bool) -> bool | str:
    """The same as requests takes it: a file of certificates, True for the system's, False for any server. Raises
    Failure where the file holds none."""
    if ca and not insecure:
        import ssl

        try:
            ssl.create_default_context(cafile=ca)
        except (OSError, ValueError) as error:
            what = getattr(error, "strerror", None) or error
            raise Failure(f"cannot read certificates from '{ca}': {what}", exit_codes.USAGE) from None
    return not insecure and (ca or os.environ.get("SSL_CERT_FILE") or True)


files = click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path())
output = click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(),
    help="Write here instead of standard output; written beside and renamed when complete.",
)


margin = click.option(
    "--margin",
    metavar="RATIO",
    type=click.FloatRange(0.0001, 1),
    default=0.03,
    show_default=True,
    help="Differences within this are the same for all practical purposes.",
)


def known_figures(names: Iterable[str]) -> None:
    """A usage error where a name is not a figure of a summary."""
    from llmpar.results import rows

    for name in names:
        try:
            rows.path(name)
        except KeyError:
            raise Failure(
                f"'{name}' is not a figure",
                exit_codes.USAGE,
                "for example wall_s, output_tokens_per_s, ttft_p95_s or joules_per_token; docs/metrics.md lists all",
            ) from None


def refuse_simulated(summaries: Sequence[dict[str, Any]], alone: bool = False) -> None:
    """A clear end where predictions stand among measurements; with `alone`, predictions by themselves may pass."""
    from llmpar.results import simulated

    try:
        simulated.refuse(summaries, alone)
    except simulated.Mixed as error:
        raise Failure(str(error), exit_codes.USAGE, simulated.HINT) from None


def prices_of(given: Sequence[str]) -> dict[str, float]:
    """--price NAME=AMOUNT or AMOUNT to a mapping; the bare amount under the empty name."""
    found = {}
    for one in given:
        name, _, amount = one.rpartition("=")
        try:
            value = float(amount)
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise Failure(f"price '{one}' is not NAME=AMOUNT an hour", exit_codes.USAGE, "for example --price H100=2.5")
        found[name.strip()] = value
    return found


@contextlib.contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """A file to read, `-` for standard input; a clear failure where it cannot be read."""
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        stream = open(name, "rb", buffering=1 << 20)
    except OSError as error:
        raise Failure(f"cannot read '{name}': {error.strerror}", exit_codes.USAGE) from None
    with stream:
        yield stream


def summaries_in(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, with each folder replaced by its summaries: those of a cell, a sweep, or all of runs/."""
    files: list[str] = []
    for name in names:
        if not os.path.isdir(name):
            files.append(name)
            continue
        deep = (os.path.join(name, *["*"] * depth, "summary.json") for depth in range(3))
        inside = [path for pattern in deep for path in sorted(glob.glob(pattern)) if "/removed/" not in path]
        if not inside:
            raise Failure(f"there is no summary.json in '{name}'", exit_codes.TOO_LITTLE, "`llmpar sweep` makes them")
        files += inside
    return tuple(files)


def read_records(names: tuple[str, ...], seen: records.Read | None = None) -> Iterator[dict[str, Any]]:
    """Records of the files in turn, as if they were one; none named means standard input.

    Torn lines, and records that are left out for their shape, are said on stderr, unless the caller counts them itself
    in `seen`.
    """
    counted = seen if seen is not None else records.Read()
    for name in summaries_in(names) or ("-",):
        with opened(name) as stream:
            yield from records.read(stream, name, counted)
    if seen is None:
        say_left_out(counted)


def say_left_out(seen: records.Read) -> None:
    """On stderr: which files hold torn lines, and which records were left out for their shape."""
    context = click.get_current_context(silent=True)
    command = context and context.info_name or "llmpar"
    for name in seen.torn_names:
        say(command, f"'{name}' holds torn lines; they are left out")
    for wrong in seen.left_out[:MOST_SAID]:
        say(command, f"left out: {wrong}")
    if len(seen.left_out) > MOST_SAID:
        say(command, f"left out: {len(seen.left_out) - MOST_SAID} more records")


def read_summaries(names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The summary records of the files. Raises Failure where there is none."""
    seen = records.Read()
    # What is shown of them is shown by terminals, in mail and in tables: nothing in their words may act there.
    summaries = [printable_words(record) for record in read_records(names, seen) if record["kind"] == "summary"]
    say_left_out(seen)
    if not summaries:
        code = exit_codes.BAD_INPUT if seen.left_out else exit_codes.TOO_LITTLE
        raise Failure("there is no summary record", code, "llmpar-summarise writes them")
    return summaries


def refuse_terminal(output: str | None, what: str, name: str) -> None:
    """A clear end where a document that no terminal can show would be written to one."""
    if output in (None, "-") and sys.stdout.isatty():
        raise Failure(
            f"{what} is not for a terminal", exit_codes.USAGE, f"name a file: -o {name}, or send it to one: > {name}"
        )


@contextlib.contextmanager
def writing(path: str | None) -> Iterator[BinaryIO]:
    """Standard output, or a file written beside its place and renamed when the block ends without an exception; a
    device or a pipe is written to as it is.
    """
    if path is None or path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    # The file itself, not the name that points to it; and nothing but a file may be replaced, least of all /dev/null.
    path = os.path.realpath(path)
    if os.path.exists(path) and not os.path.isfile(path):
        try:
            stream = open(path, "wb")
        except OSError as error:
            raise Failure(f"cannot write '{path}': {error.strerror}", exit_codes.USAGE) from None
        with stream:
            yield stream
        return
    parts.clear(path)
    part = parts.name(path)
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise Failure(f"cannot write '{path}': {error.strerror}", exit_codes.USAGE) from None
    try:
        with os.fdopen(fd, "wb") as stream:
            yield stream
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise


class Seconds(click.ParamType):
    """A duration such as `500ms`, `0.5s` or a plain number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from llmpar import sizes

        try:
            return value if isinstance(value, float) else sizes.seconds_of(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Objectives(click.ParamType):
    """An SLO such as `ttft-p95<500ms tpot-p95<50ms`, as metric to the most it may be in seconds."""

    name = "slo"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, float]:
        from llmpar.verdicts import objectives

        try:
            return value if isinstance(value, dict) else objectives.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
