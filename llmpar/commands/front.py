"""llmpar: the front door. It lists the jobs in order of use and runs them; each piece is a command of its own too."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import stat
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from llmpar import cli, commands, exit_codes
from llmpar.failure import Failure
from llmpar.machine import installation, make

MEASURE = "Measure"
READ = "Read results: of runs/, or of the files and folders named"
SET_UP = "Set up"
# Commands of their own that read summaries, with what they are for.
READERS = {
    "compare": "which engine or setting is faster, and how surely: --by engine",
    "pick": "the best cells under objectives: --ttft-p95 500ms",
    "report": "one HTML file of everything, runs/report.html",
    "claims": "what the results say of the study's findings",
    "plot": "latency and throughput as a picture: -o picture.png",
}
# Those that read runs/ where no file is named.
READ_RUNS = (*READERS, "table", "plan")


def pipes() -> list[str]:
    """The other commands, which pass records to one another: `request`, `serve`, ..."""
    names = [module.name.strip("_").replace("_", "-") for module in pkgutil.iter_modules(commands.__path__)]
    return [name for name in names if name not in ("front", "doctor", *READERS)]


class Front(click.Group):
    """Jobs by section, in order of use; `llmpar NAME` is llmpar-NAME for every other command."""

    sections: dict[str, list[str]] = {}

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        made = super().get_command(ctx, name)
        return made or (passed_on(name) if name in (*READERS, "doctor", *pipes()) else None)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*(name for names in self.sections.values() for name in names), *pipes()]

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            close = difflib.get_close_matches(name.removeprefix("llmpar-"), self.list_commands(ctx), 1)
            hint = f"did you mean {close[0]}?" if close else "`llmpar` lists them"
            raise Failure(f"no job '{name}'", exit_codes.USAGE, hint)
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One screen of 80 columns and 24 lines."""
        listed = [name for names in self.sections.values() for name in names if name != "man"]
        texts = {name: READERS.get(name) or (self.get_command(ctx, name) or self).short_help or "" for name in listed}
        lines = [f"Usage: {ctx.command_path} JOB [ARGUMENT]...  `{ctx.command_path} JOB --help` says more of one."]
        for section, names in self.sections.items():
            lines += [
                *([""] if len(lines) > 1 else []),
                section,
                *(f"  {name:<11} {texts[name]}" for name in names if name in texts),
            ]
        pieces = textwrap.fill(
            "Pieces for pipes, as llmpar-NAME too: " + " ".join(pipes()),
            78,
            subsequent_indent="  ",
            break_on_hyphens=False,
        )
        formatter.write("\n".join([*lines, pieces, ""]))


@click.group(
    cls=Front, context_settings=cli.CONTEXT, invoke_without_command=True, subcommand_metavar="JOB [ARGUMENT]..."
)
@click.version_option(cli.version(), "--version", prog_name="llmpar", message="%(prog)s %(version)s")
@click.pass_context
def front(ctx: click.Context) -> int:
    """Choose an LLM inference engine and its settings by timing prompts."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    return exit_codes.OK


def main() -> None:
    sys.exit(cli.run("llmpar", front))


main.command = front  # type: ignore[attr-defined]


def job(section: str, text: str) -> Callable[[Callable[..., Any]], click.Command]:
    """A job of the front door, listed in its section in the order in which jobs are defined."""

    def wrap(function: Callable[..., Any]) -> click.Command:
        made = front.command(name=function.__name__.strip("_"), short_help=text)(function)
        Front.sections.setdefault(section, []).append(str(made.name))
        return made

    return wrap


# Jobs that make runs


def table_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in make.tables() if name.startswith(incomplete)]


def options(*made: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def wrap(function: Any) -> Any:
        for decorate in reversed(made):
            function = decorate(function)
        return function

    return wrap


table = click.argument("sweep", metavar="[TABLE]", required=False, shell_complete=table_names)
words = click.argument("words", metavar="[NAME=VALUE]...", nargs=-1)
server = options(
    click.option(
        "--base-url", metavar="URL", help="Use the server that runs there; name it with --engine and --model."
    ),
    click.option("--engine", metavar="NAME", help="The engine that answers at URL."),
    click.option("--model", metavar="NAME", help="The model that answers at URL."),
    click.option("--api", metavar="API", help="Its API.  [default: openai-completions]"),
)
where = options(
    click.option("--runs", metavar="DIR", help="Where results go.  [default: runs]"),
    click.option("--launcher", metavar="HOW", help="How clients start: parallel, queue, threads, asyncio."),
)
flags = options(
    click.option("-n", "--dry-run", is_flag=True, help="Only print what would be done."),
    click.option("-k", "--keep-going", is_flag=True, help="Go on past a cell that fails."),
)


def make_flags(dry_run: bool, keep_going: bool) -> list[str]:
    return ["-n"] * dry_run + ["-k"] * keep_going


def one_or_word(sweep: str | None, words: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """`llmpar sweep REPEATS=3` names no table."""
    return (None, (sweep, *words)) if sweep and "=" in sweep else (sweep, words)


@job(MEASURE, "time the cells of a table: clients, engines, settings")
@table
@words
@click.option("--repeats", metavar="N", help="Server sessions of each server's settings.  [default: 1]")
@click.option("--seed", metavar="N", help="Order of repeated server sessions.  [default: 0]")
@server
@where
@flags
def sweep(sweep: str | None, words: tuple[str, ...], dry_run: bool, keep_going: bool, **settings: Any) -> None:
    """Time every cell of a sweep table that is missing in runs/, then print the table and name the picture.

    \b
      llmpar sweep quick
      llmpar sweep clients --base-url http://127.0.0.1:8000 --engine vllm --model my-7b
      llmpar sweep my-table.tsv --repeats 3

    TABLE is a file sweeps/TABLE.tsv here, else one that came with llmpar; or a path. Default: quick, the embedded
    engine on a CPU. `llmpar init` copies the tables here to edit. Exit status: make's; 2 something failed.
    """
    sweep, words = one_or_word(sweep, words)
    make.run("sweep", {"sweep": sweep, **settings}, words, make_flags(dry_run, keep_going))


slo = click.option("--slo", metavar="SLO", help="Objectives: 'ttft-p95<500ms tpot-p95<50ms'.")
minutes = click.option("--minutes", metavar="N", help="Spend no more than about this long.")


@job(MEASURE, "the most clients (or rate) within an objective")
@table
@words
@slo
@click.option("--axis", metavar="AXIS", help="What grows: clients or rate.  [default: clients]")
@click.option("--most", metavar="N", help="Try no more than this.")
@minutes
@server
@where
def find(sweep: str | None, words: tuple[str, ...], **settings: Any) -> None:
    """Find the most clients that a server takes within its objectives: double, bisect, and say how sure it is.

    \b
      llmpar find --slo 'ttft-p95<500ms' --base-url http://127.0.0.1:8000 --engine vllm --model my-7b
      llmpar find quick --slo 'ttft-p95<2s'

    Settings come from the first row of TABLE; without --base-url its server is launched.
    """
    sweep, words = one_or_word(sweep, words)
    make.run("find", {"sweep": sweep, **settings}, words)


@job(MEASURE, "whether setting A is faster than setting B")
@table
@words
@click.option("--a", metavar="SETTINGS", help="One side, such as 'speculate=0'.")
@click.option("--b", metavar="SETTINGS", help="The other side, such as 'speculate=2'.")
@click.option("--by", metavar="FIGURE", help="What is compared.  [default: wall_s]")
@minutes
@where
def decide(sweep: str | None, words: tuple[str, ...], **settings: Any) -> None:
    """Decide whether A or B is faster, in no more server sessions than it takes.

    \b
      llmpar decide clients --a 'speculate=0' --b 'speculate=2'
    """
    sweep, words = one_or_word(sweep, words)
    make.run("decide", {"sweep": sweep, **settings}, words)


@job(MEASURE, "the best row of a table within objectives and minutes")
@table
@words
@click.option("--space", metavar="FILE", help="The table of candidates, a row each.")
@slo
@minutes
@where
def best(sweep: str | None, words: tuple[str, ...], **settings: Any) -> None:
    """Find the best of many settings, and name those that are not surely worse.

    \b
      llmpar best --space candidates.tsv --slo 'ttft-p95<500ms' --minutes 60
    """
    sweep, words = one_or_word(sweep, words)
    make.run("best", {"sweep": sweep, **settings}, words)


@job(MEASURE, "the study's sweeps that this machine can run")
@click.argument("names", nargs=-1, metavar="[SWEEP]...")
def study(names: tuple[str, ...]) -> None:
    """Run the study's sweeps: on a host with a GPU the tables of sweeps/, without one those of sweeps/cpu/."""
    for name in names[:1]:
        make.run(f"study-{name}", {}, ())
    make.run("study", {}, ())


@job(MEASURE, "measure once and compare with earlier nights, for cron")
@click.argument("words", metavar="[NAME=VALUE]...", nargs=-1)
def nightly(words: tuple[str, ...]) -> None:
    """Measure a sweep and compare it with the nights before; silent where nothing is wrong (docs/nightly.md).

    \b
      cd ~/nights && llmpar nightly SWEEP=quick
    """
    make.need("make", "bash", "perl", "flock", "awk")
    os.execvpe("bash", ["bash", str(installation.home() / "scripts" / "nightly"), *words], make.environment())


Front.sections[READ] = list(READERS)
Front.sections[SET_UP] = ["doctor"]


@job(SET_UP, "install what is missing: GNU parallel, embedded engine, plots")
def setup() -> None:
    """Install what the main job needs, GNU parallel included: through apt where that is allowed, else without root."""
    make.run("setup", {}, ())


@job(SET_UP, "copy tables, prompts and a Makefile here, to edit")
@click.argument("folder", default=".", type=click.Path(file_okay=False))
def init(folder: str) -> int:
    """Copy sweep tables, prompts, claims and a Makefile to FOLDER. What is there already is kept."""
    target = Path(folder)
    if target.resolve() == installation.home().resolve():
        raise Failure("this is the checkout: its tables are here", exit_codes.USAGE)
    kept = make.copy_project(target)
    cli.say(
        "llmpar", f"'{target}' has the tables" + (f"; {kept} files were there already and are kept" if kept else "")
    )
    return exit_codes.OK


@front.command(name="home", hidden=True)
def home() -> int:
    """For the Makefile of `init`: the folder of the packaged one, the environment, its Python, how it was installed."""
    variables = make.environment()
    python = variables.get("PYTHON", "python3")
    click.echo(" ".join((str(installation.home()), variables["VENV"], python, variables.get("LLMPAR_INSTALLED", ""))))
    return exit_codes.OK


@front.command(name="progress", hidden=True)
@click.argument("folder")
@click.argument("session")
def progress(folder: str, session: str) -> int:
    """For scripts: draw how far the sweep in FOLDER is, until the script ends."""
    from llmpar import progress

    os.nice(10)
    progress.show(folder, session, os.getppid())
    return exit_codes.OK


SHELLS = ("bash", "zsh", "fish")


@job(SET_UP, "shell completion; `llmpar man` writes man pages")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print what makes SHELL complete llmpar and its commands.

    \b
      eval "$(llmpar completion bash)"                                  # in ~/.bashrc; zsh alike
      llmpar completion fish > ~/.config/fish/completions/llmpar.fish
    """
    from click.shell_completion import ShellComplete, get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    for name in ("llmpar", *(f"llmpar-{name}" for name in ("doctor", *READERS, *pipes()))):
        # The base class's source: bash's own asks for bash's version each time.
        click.echo(ShellComplete.source(kind(front, {}, name, cli.completion_variable(name))))
    return exit_codes.OK


@job(SET_UP, "man pages, for ~/.local/share/man")
@click.argument("folder", default="~/.local/share/man/man1", type=click.Path(file_okay=False))
def man(folder: str) -> int:
    """Write a man page of each command to FOLDER. man finds those in ~/.local/share/man where ~/.local/bin is on the
    PATH."""
    from click_man.core import write_man_pages

    path = Path(folder).expanduser()
    path.mkdir(parents=True, exist_ok=True)
    write_man_pages("llmpar", front, version=cli.version(), target_dir=str(path))
    for name in ("doctor", *READERS, *pipes()):
        write_man_pages(f"llmpar-{name}", module(name).main.command, version=cli.version(), target_dir=str(path))
    cli.say("llmpar", f"man pages are in '{path}'")
    return exit_codes.OK


# Commands of their own


def module(name: str) -> Any:
    return importlib.import_module(f"llmpar.commands.{'import_' if name == 'import' else name.replace('-', '_')}")


def passed_on(name: str) -> click.Command:
    """`llmpar NAME ...` is `llmpar-NAME ...`; commands that read results read runs/ where no file is named."""

    @click.command(
        name=name,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        add_help_option=False,
        short_help="what is missing on this machine, and how to install it" if name == "doctor" else None,
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def run(arguments: tuple[str, ...]) -> int:
        if name == "request":  # its launcher is a script
            beside = Path(sys.argv[0]).resolve().parent / "llmpar-request"
            launcher = str(beside) if beside.exists() else "llmpar-request"
            os.execvp(launcher, [launcher, *arguments])
        made = module(name).main.command
        words, added = list(arguments), list[str]()
        if name in READ_RUNS and not piped_in() and not {"-h", "--help", "--help-all", "--version"} & set(words):
            added = unnamed_results(name, made, words)
        code = cli.run(f"llmpar-{name}", made, words + added)
        if code == exit_codes.OK and added[:1] == ["-o"]:
            click.echo(added[1])
        return code

    return run


def piped_in() -> bool:
    """Whether standard input is a pipe or a file, rather than a terminal or /dev/null."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def unnamed_results(name: str, made: click.Command, words: list[str]) -> list[str]:
    """The results of runs/, and the report's own file, for a command line that names none."""
    runs = os.environ.get("LLMPAR_RUNS") or "runs"
    given = made.make_context(name, list(words), resilient_parsing=True).params
    if given.get("files") or not Path(runs).is_dir():
        return []
    return [*(["-o", f"{runs}/report.html"] if name == "report" and not given.get("output") else []), runs]


if __name__ == "__main__":
    main()
