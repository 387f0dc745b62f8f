"""`dinserve completion`: what a shell needs to complete this command line."""

import click
from click.shell_completion import get_completion_class

HOW = {
    "bash": """eval "$(dinserve completion bash)" in ~/.bashrc""",
    "zsh": """eval "$(dinserve completion zsh)" in ~/.zshrc, after compinit""",
    "fish": "dinserve completion fish > ~/.config/fish/completions/dinserve.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(HOW)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands and options; its last line says where it goes."""
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  click has each of the three
    source = kind(context.find_root().command, {}, "dinserve", "_DINSERVE_COMPLETE").source()
    click.echo(f"{source.rstrip()}\n# To install: {HOW[shell]}")
