# SPDX-License-Identifier: Apache-2.0
"""The commands of `nsm`, apart from `nsm run`, which has a way of its own.

Does:  `doctor` tells what this machine can build; `chain show` prints the chain of a role; `explain` asks a running
       program; `demo` and `lab` run a mesh on this machine.
Place: behind `nsm_sdk.cli.main`.
State: none.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="nsm", help="Network Service Mesh: run it, look at it, try it.", no_args_is_help=True, add_completion=False
)
chain = typer.Typer(help="The chains of elements that roles are made of.", no_args_is_help=True)
app.add_typer(chain, name="chain")

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=_PASS_ON)
def run(context: typer.Context) -> None:
    """Run one role of the mesh as a process; `nsm run --help` lists the roles."""
    from nsm_sdk.cli.run import main

    raise typer.Exit(main(context.args))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """What this machine can build, and why not."""
    from nsm_sdk.cli.doctor import report

    raise typer.Exit(report(as_json=as_json))


@chain.command("show")
def show(
    role: Annotated[str, typer.Argument(help="registry, nsmgr, forwarder, nse or nsc")],
    mermaid: Annotated[bool, typer.Option("--mermaid", help="A Mermaid flowchart instead of a tree.")] = False,
) -> None:
    """Print the chains of a role, as `nsm run ROLE` builds them from the settings of this environment."""
    from nsm_sdk.cli.show import chains

    raise typer.Exit(chains(role, mermaid=mermaid))


@app.command()
def explain(
    id: Annotated[str, typer.Argument(help="Id of a connection; none lists what the program has.")] = "",
    socket: Annotated[
        Path | None, typer.Option("--socket", help="The program's NSM_ADMIN_SOCKET.", envvar="NSM_ADMIN_SOCKET")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as the program answers them.")] = False,
) -> None:
    """What happened to a connection, by the journal of the program that has it."""
    from nsm_sdk.cli.explain import explain as tell

    if socket is None:
        print("nsm explain: expected --socket PATH, the NSM_ADMIN_SOCKET of a running program", file=sys.stderr)
        raise typer.Exit(2)
    raise typer.Exit(tell(socket, id, as_json=as_json))


@app.command(context_settings=_PASS_ON)
def demo(context: typer.Context) -> None:
    """A whole mesh on this machine, and one connection through it, step by step; `demo heal` breaks it on purpose."""
    raise typer.Exit(_later("demo", context.args))


@app.command(context_settings=_PASS_ON)
def lab(context: typer.Context) -> None:
    """A mesh on this machine to try things with."""
    raise typer.Exit(_later("lab", context.args))


def _later(name: str, arguments: list[str]) -> int:
    """Run the module of that name, which has `main(arguments)` and answers the exit status."""
    from importlib import import_module

    try:
        found: Any = import_module(f"nsm_sdk.cli.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"nsm_sdk.cli.{name}":
            raise
        print(f"nsm {name}: this version has none", file=sys.stderr)
        return 1
    return int(found.main(arguments) or 0)


def print_json(value: Any) -> None:
    """One line of JSON."""
    print(json.dumps(value, ensure_ascii=False))
