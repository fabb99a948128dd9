"""What of the site is made from the code when it is built: a hook of mkdocs (infra/mkdocs.yml).

The pages of commands come from their parsers, the tables of error classes and exit statuses from
`framebank.features.errors`, the decisions and the changelog from where they lie. mkdocstrings reads
the package as it is installed, so it is put together under build/.
"""

from __future__ import annotations

import argparse
import html
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / "build" / "site-package" / "framebank"
FLOORS = ("features", "pipelines", "train")

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))


def on_startup(**_: object) -> None:
    """Put the package together, before mkdocstrings looks for it."""
    shutil.rmtree(INSTALLED, ignore_errors=True)
    shutil.copytree(ROOT / "framebank", INSTALLED)
    for floor in FLOORS:
        shutil.copytree(ROOT / floor, INSTALLED / floor)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the generated pages in the navigation."""
    from framebank import cli

    commands = [{name: f"reference/commands/{name}.md"} for name in sorted(cli.COMMANDS)]
    pages = ["reference/commands/index.md", *commands]
    decisions: list[Any] = ["decisions/index.md", *(f"decisions/{p.name}" for p in _decisions())]
    for section in config.nav or []:
        for entry in next(iter(section.values())) if isinstance(section, dict) else []:
            if isinstance(entry, dict) and "Commands" in entry:
                entry["Commands"] = pages
            if isinstance(entry, dict) and "Decisions" in entry:
                entry["Decisions"] = decisions
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    from framebank import cli

    for name in cli.COMMANDS:
        text = command_page(name)
        files.append(File.generated(config, f"reference/commands/{name}.md", content=text))
    overview = File.generated(config, "reference/commands/index.md", content=commands_page())
    files.append(overview)
    links = []
    for path in _decisions():
        text = path.read_text()
        links.append(f"- [{_title(text)}]({path.name})")
        files.append(File.generated(config, f"decisions/{path.name}", content=text))
    text = "# Decisions\n\nHard choices, and what failed.\n\n" + "\n".join(links) + "\n"
    files.append(File.generated(config, "decisions/index.md", content=text))
    changelog = (ROOT / "CHANGELOG.md").read_text()
    files.append(File.generated(config, "changelog.md", content=changelog))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the tables that come from the code where a page asks for them."""
    tables = {"error classes": class_table, "errors": error_table}
    for name, table in tables.items():
        markdown = markdown.replace(f"<!-- from the code: {name} -->", table())
    return markdown


def commands_page() -> str:
    """Return the overview of all commands."""
    from framebank import cli

    lines = ["# Commands", "", "| command | what it does |", "| --- | --- |"]
    lines += [
        f"| [`{name}`]({name}.md) | {_cell(command.help)} |"
        for name, command in sorted(cli.COMMANDS.items())
    ]
    lines += ["", "`framebank COMMAND --help` says the same."]
    return "\n".join(lines) + "\n"


def command_page(name: str) -> str:
    """Return the page of a command: what its --help says, as Markdown."""
    from framebank import cli

    parser = cli.command_parser(name)
    lines = [f"# framebank {name}", "", *_prose(parser.description or ""), ""]
    lines += _options(parser)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, sub in action.choices.items():
                lines += [f"## framebank {name} {word}", "", *_options(sub)]
    if cli.COMMANDS[name].takes_beam_options:
        lines += ["Options of Apache Beam are passed on: [where it runs](../../how-to/runners.md)."]
    return "\n".join(lines) + "\n"


def class_table() -> str:
    """Return the quarantine classes as a table."""
    from framebank.features.errors import ERROR_CLASSES, REMEDIES

    rows = [
        f"| `{name}` | {_cell(what)} | {_cell(REMEDIES.get(name, ''))} |"
        for name, what in ERROR_CLASSES.items()
    ]
    return "\n".join(["| class | meaning | what to do |", "| --- | --- | --- |", *rows])


def error_table() -> str:
    """Return the errors that cross the boundary, with the exit status of each."""
    from framebank.features import errors

    kinds = [errors.FramebankError, errors.UsageError, errors.SpecMismatchError, errors.JobError]
    kinds += [errors.CacheError]
    rows = [f"| `{kind.__name__}` | {kind.exit_status} | {_cell(kind.__doc__)} |" for kind in kinds]
    return "\n".join(["| error | exit status | what it is |", "| --- | --- | --- |", *rows])


def _options(parser: argparse.ArgumentParser) -> list[str]:
    usage = parser.format_usage().removeprefix("usage: ")
    parser.format_help()  # which names the defaults
    formatter = parser._get_formatter()
    rows = []
    for action in sorted(parser._actions, key=lambda one: bool(one.option_strings)):
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
            continue
        if action.help == argparse.SUPPRESS:
            continue
        names = ", ".join(f"`{word}`" for word in _words(action))
        text = formatter._expand_help(action) if action.help else ""
        rows.append(f"| {names} | {_choices(action)}{_cell(text)} |")
    table = ["| option | what it does |", "| --- | --- |", *rows, ""] if rows else []
    return ["```text", *usage.rstrip().splitlines(), "```", "", *table]


def _words(action: argparse.Action) -> Iterator[str]:
    if not action.option_strings:
        yield str(action.metavar or action.dest)
        return
    value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
    yield from (f"{word}{value}" for word in action.option_strings)


def _choices(action: argparse.Action) -> str:
    if not action.choices:
        return ""
    return " ".join(f"`{choice}`" for choice in action.choices) + " "


def _prose(text: str) -> Iterator[str]:
    """Yield a docstring's lines; what is indented is code, all else has no markup of its own."""
    for line in text.strip().splitlines():
        yield line if line.startswith("    ") else _plain(line)


def _cell(text: str | None) -> str:
    return _plain(" ".join((text or "").split())).replace("|", "\\|")


def _plain(text: str) -> str:
    """Return `text` without what Markdown would take for markup of its own."""
    return re.sub(r"[\[\]*]", lambda found: f"&#{ord(found[0])};", html.escape(text, quote=False))


def _title(text: str) -> str:
    return next(line for line in text.splitlines() if line.startswith("# ")).removeprefix("# ")


def _decisions() -> list[Path]:
    return sorted((ROOT / "infra" / "decisions").glob("*.md"))
