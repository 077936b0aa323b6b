# SPDX-License-Identifier: Apache-2.0
"""The command line of `nsm`: every command, its options, and their help.

Does:  reads arguments, imports what the command needs, and passes them on; the functions behind return the exit status.
       Help is plain text: rich renders tables and live screens, and its import would double the time of `nsm --help`.
Place: behind `nsm_sdk.cli.main`.
State: none.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

import nsm_sdk
from nsm_sdk.cli.roles import SUMMARIES

USAGE = 2
"""Exit status for bad usage and bad settings."""
MOST = 64
"""Workloads of each kind in `nsm lab`."""

# Tracebacks as rich prints them show the values of local variables, tokens among them.
_PLAIN: Any = {"rich_markup_mode": None, "pretty_exceptions_enable": False}
_CONTEXT: Any = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="nsm", help="Network Service Mesh: run it, look at it, try it.", no_args_is_help=True,
    context_settings=_CONTEXT, **_PLAIN,
)  # fmt: skip
chain = typer.Typer(help="The chains of elements that roles are made of.", no_args_is_help=True, **_PLAIN)
demo = typer.Typer(invoke_without_command=True, **_PLAIN)
app.add_typer(chain, name="chain")
app.add_typer(demo, name="demo", short_help="A whole mesh on this machine, and a connection through it.")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"nsm {nsm_sdk.__version__}")
        raise typer.Exit


@app.callback()
def nsm(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Network Service Mesh: run it, look at it, try it."""


_ROLE = "nsm_sdk.role"


class _Run(TyperCommand):
    """`nsm run`, whose help lists the roles, or the settings of the role that was given."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Remember the role first: `--help` leaves while options are read, before any argument is."""
        ctx.meta[_ROLE] = next((word for word in args if word in SUMMARIES), "")
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, options, and the roles or settings."""
        role = ctx.meta[_ROLE]
        formatter.write_usage(f"nsm run {role or 'ROLE'}", "[OPTIONS]")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(f"Run one role of the mesh as a process{f': {SUMMARIES[role]}' if role else ''}.")
        self.format_options(ctx, formatter)
        if role:
            from nsm_sdk.cli.run import settings_text

            formatter.write(settings_text(role))
            return
        with formatter.section("Roles"):
            formatter.write_dl(list(SUMMARIES.items()))
        formatter.write_paragraph()
        formatter.write_text("`nsm run ROLE --help` lists the settings of a role.")


def _roles_of(incomplete: str) -> list[str]:
    return [name for name in SUMMARIES if name.startswith(incomplete)]


@app.command(cls=_Run, short_help="Run one role of the mesh as a process.", context_settings=_CONTEXT)
def run(
    role: Annotated[
        str, typer.Argument(metavar="ROLE", help=", ".join(SUMMARIES), autocompletion=_roles_of, show_default=False)
    ],
    env_file: Annotated[
        list[str] | None, typer.Option("--env-file", metavar="FILE", help="Read settings from FILE.")
    ] = None,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NSM_NAME=VALUE", help="A setting; wins over environment and file."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the settings and leave.")] = False,
) -> None:  # fmt: skip
    """Run one role of the mesh as a process; `nsm run ROLE --help` lists its settings."""
    from nsm_sdk.cli.run import run_role

    if role not in SUMMARIES:
        print(f"nsm run: unknown role {role!r}: expected {', '.join(SUMMARIES)}", file=sys.stderr)
        raise typer.Exit(USAGE)
    raise typer.Exit(run_role(role, set or (), env_file or (), check=check))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """What this machine can build, and why not."""
    from nsm_sdk.cli.doctor import report

    raise typer.Exit(report(as_json=as_json))


@chain.command("show")
def show(
    role: Annotated[str, typer.Argument(help="registry, nsmgr, forwarder, nse or nsc", autocompletion=_roles_of)],
    mermaid: Annotated[bool, typer.Option("--mermaid", help="A Mermaid flowchart instead of a tree.")] = False,
) -> None:
    """Print the chains of a role, as `nsm run ROLE` builds them from the settings of this environment."""
    from nsm_sdk.cli.show import chains

    raise typer.Exit(chains(role, mermaid=mermaid))


@app.command(short_help="What happened to a connection of a running program.")
def explain(
    id: Annotated[str, typer.Argument(help="Id of a connection; none lists what the program has.")] = "",
    socket: Annotated[
        Path | None, typer.Option("--socket", help="The program's NSM_ADMIN_SOCKET.", envvar="NSM_ADMIN_SOCKET")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as the program writes them.")] = False,
) -> None:
    """What happened to a connection, by the journal of the program that has it."""
    from nsm_sdk.cli.explain import explain as tell

    if socket is None:
        print("nsm explain: expected --socket PATH, the NSM_ADMIN_SOCKET of a running program", file=sys.stderr)
        raise typer.Exit(USAGE)
    raise typer.Exit(tell(socket, id, as_json=as_json))


@demo.callback()
def first(
    context: typer.Context,
    simulated: Annotated[bool, typer.Option("--simulated", help="No packets, no privileges.")] = False,
    programs: Annotated[
        bool, typer.Option("--programs", help="A process for each hop instead of one for all.")
    ] = False,
) -> None:
    """A whole mesh on this machine, and one connection through it, step by step; `demo heal` breaks it on purpose."""
    if context.invoked_subcommand is not None:
        if simulated or programs:
            raise typer.BadParameter(f"--simulated and --programs are not for `demo {context.invoked_subcommand}`")
        return
    from nsm_sdk.cli.demo import play

    raise typer.Exit(play(simulated=simulated, programs=programs))


@demo.command("heal")
def heal(
    scenarios: Annotated[
        list[str] | None, typer.Argument(metavar="SCENARIO", help="Which scenarios to play; none: all of them.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a live table.")] = False,
) -> None:
    """One connection, several ways to lose it, and how each is healed."""
    from nsm_sdk.cli.demo_heal import play_scenarios

    raise typer.Exit(play_scenarios(scenarios or (), plain=plain))


@app.command()
def lab(
    clients: Annotated[
        int, typer.Option("--clients", min=1, max=MOST, metavar="N", help=f"How many clients, at most {MOST}.")
    ] = 1,
    endpoints: Annotated[
        int, typer.Option("--endpoints", min=1, max=MOST, metavar="N", help=f"How many endpoints, at most {MOST}.")
    ] = 1,
    simulated: Annotated[bool, typer.Option("--simulated", help="No interfaces, no privileges.")] = False,
) -> None:
    """A mesh on this machine to try things with, kept up until Ctrl-C."""
    from nsm_sdk.cli.lab import keep

    raise typer.Exit(keep(clients=clients, endpoints=endpoints, simulated=simulated))
