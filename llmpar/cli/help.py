"""Help in two sizes. `--help` fits a screen of 80 columns and 24 lines; `--help-all` is everything, as on the man page.

Every command's text has the same parts in the same order: a sentence, examples, what is read and written, exit status.
"""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Mapping

import click

from llmpar.cli.messages import say

# An option's old spelling: the option that replaced it, and how its value is converted (None: it is kept as it is).
Renamed = Mapping[str, tuple[str, Callable[[str], str] | None]]
WIDTH, NAMES = 80, 28  # columns: of the screen, and of options' names
TEXT = WIDTH - NAMES - 6
ALL = "llmpar.cli.help.all"  # in a context's meta: everything is shown


class Command(click.Command):
    """A command whose `--help` shows the options named in `common`, or all of them and all of its text where that is
    empty. It still takes the option spellings of earlier releases, with a warning for each.
    """

    renamed: Renamed = {}
    common: tuple[str, ...] = ()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, current_spelling(args, self.renamed, str(self.name)))

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not self.common or ALL in ctx.meta:
            super().format_help_text(ctx, formatter)
            return
        sentence, examples, *_, statuses = parts(inspect.cleandoc(self.help or ""))
        head, *lines = examples.split("\n")
        fitting = [line for line in lines if len(line) <= WIDTH - 2]
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(sentence)
            formatter.write_paragraph()
            formatter.write_text("\n".join([head, *fitting[:2]]))
            formatter.write_paragraph()
            formatter.write_text(statuses)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not self.common or ALL in ctx.meta:
            super().format_options(ctx, formatter)
            return
        options = {name: option for option in self.get_params(ctx) for name in option.opts}
        shown = [row for name in self.common if (row := _row(options[name], ctx)) is not None]
        with formatter.section("Common options (--help-all: the others, and what is read and written)"):
            formatter.write_dl(shown, col_max=NAMES)


def _row(option: click.Parameter, ctx: click.Context) -> tuple[str, str] | None:
    """Name and one line of an option: the first sentence of its help, and its default."""
    row = option.get_help_record(ctx)
    if row is None or not isinstance(option, click.Option):
        return None
    text = re.split(r"(?<=\.)\s|\s\s?\[|; ", option.help or "")[0]
    if option.show_default and option.default is not None:
        shown = " ".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
        default = f"  [default: {shown}]"
        text += default if len(text + default) <= TEXT else ""
    return row[0], text


def parts(text: str) -> list[str]:
    r"""The paragraphs of a command's help, a `\b` with the lines that it keeps."""
    return [part.strip("\n") for part in re.split(r"\n\s*\n", text.strip())]


def show_all(ctx: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        ctx.meta[ALL] = True
        click.echo(ctx.get_help())
        ctx.exit()


def current_spelling(args: list[str], renamed: Renamed, name: str) -> list[str]:
    """The arguments with options spelled as they are today. An old option counts only where a value follows it, so that
    an old `--version VALUE` does not clash with `--version`; words after `--` belong to another command.
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
