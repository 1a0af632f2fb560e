"""`dmpo space`: deploy this studio as a Hugging Face Space: code, settings, hardware, the bucket that keeps votes."""

import os
import secrets
from typing import Annotated

import typer

from dmpo_app.cli.terminal import StudioTyper, exit_on_error, out
from dmpo_app.errors import BadInputError, ConflictError, NotFoundError, StudioError

app = StudioTyper(help="This studio as a Hugging Face Space.")

ADMIN_TOKEN = "DMPO_ADMIN_TOKEN"

Name = Annotated[str, typer.Argument(metavar="USER/NAME")]
Private = Annotated[bool, typer.Option(help="Make a Space that is new private")]
Hardware = Annotated[str | None, typer.Option(help="cpu-basic, t4-small, zero-a10g, ...", show_default=False)]
Bucket = Annotated[
    str | None,
    typer.Option(
        metavar="USER/NAME", help="A private bucket that keeps votes and versions; made if missing", show_default=False
    ),
]
Variables = Annotated[list[str] | None, typer.Option("--variable", metavar="NAME=VALUE", show_default=False)]
Secrets = Annotated[
    list[str] | None,
    typer.Option("--secret", metavar="NAME", help="A variable of your environment, as a secret", show_default=False),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")]


@app.command()
def create(
    name: Name,
    private: Private = False,
    hardware: Hardware = None,
    bucket: Bucket = None,
    variable: Variables = None,
    secret: Secrets = None,
    yes: Yes = False,
) -> None:
    """Make a Space of this checkout. Shows what it will do, and asks."""
    with exit_on_error():
        secret_values = _secrets(secret)
        is_new_token = ADMIN_TOKEN not in secret_values
        if is_new_token:
            secret_values[ADMIN_TOKEN] = os.environ.get(ADMIN_TOKEN) or secrets.token_urlsafe(24)
        is_applied = _apply(
            name, is_new=True, private=private, hardware=hardware, bucket=bucket,
            variables=_variables(variable), secret_values=secret_values, yes=yes,
        )  # fmt: skip
        if is_applied and is_new_token and ADMIN_TOKEN not in os.environ:
            out.print(f"The administrators' token, shown this once: {secret_values[ADMIN_TOKEN]}", highlight=False)


@app.command()
def update(
    name: Name,
    hardware: Hardware = None,
    bucket: Bucket = None,
    variable: Variables = None,
    secret: Secrets = None,
    yes: Yes = False,
) -> None:
    """Bring a Space to the state of this checkout and these options.

    Only what differs is changed; secrets that are named are written anew, for the Hub tells nobody what they are.
    """
    with exit_on_error():
        _apply(
            name, is_new=False, private=False, hardware=hardware, bucket=bucket,
            variables=_variables(variable), secret_values=_secrets(secret), yes=yes,
        )  # fmt: skip


def _apply(
    name: str,
    *,
    is_new: bool,
    private: bool,
    hardware: str | None,
    bucket: str | None,
    variables: dict[str, str],
    secret_values: dict[str, str],
    yes: bool,
) -> bool:
    """Show and run the steps; True when they were run.

    Raises ConflictError, NotFoundError, BadInputError, SetupError, StudioError.
    """
    from huggingface_hub import HfApi

    from dmpo_app.errors import hub_client_errors
    from dmpo_app.hosting.space import SpaceSpec, exists, plan_steps, space_files
    from dmpo_app.labeling.sign_in import require_strong_token
    from dmpo_app.settings import PROJECT_ROOT

    if ADMIN_TOKEN in secret_values:  # refused here rather than by a Space that does not start
        require_strong_token(secret_values[ADMIN_TOKEN])

    api, files = HfApi(), space_files(PROJECT_ROOT)
    try:
        if exists(api, name) == is_new:
            raise (
                ConflictError(f"{name} is there already: dmpo space update {name}")
                if is_new
                else NotFoundError(f"there is no Space {name}, or your token may not see it: dmpo space create {name}")
            )
        spec = SpaceSpec(name, private, hardware, bucket, variables, secret_values)
        steps = plan_steps(api, spec, files)
        if not steps:
            out.print(f"{name} is as it should be.", highlight=False)
            return False
        for step in steps:
            out.print(f"  {step.description}", highlight=False, markup=False)
        if not yes:
            typer.confirm("Do this?", abort=True)
        for step in steps:
            step.run()
    except hub_client_errors() as error:
        raise StudioError(
            f"{name}: the Hub refused or cannot be reached ({type(error).__name__}: {error}); what was done stays "
            "done, and running this again goes on. A token that may write is needed (HF_TOKEN, or `hf auth login`)"
        ) from error
    out.print(f"{api.endpoint}/spaces/{name}", highlight=False)
    if bucket is not None and "HF_TOKEN" not in secret_values:
        out.print("To write to the bucket the Space needs a secret HF_TOKEN: --secret HF_TOKEN", highlight=False)
    return True


def _variables(assignments: list[str] | None) -> dict[str, str]:
    variables = {}
    for one in assignments or []:
        key, equals, value = one.partition("=")
        if not equals or not key.isidentifier():
            raise BadInputError(f"--variable {one!r} is not NAME=VALUE")
        variables[key] = value
    return variables


def _secrets(names: list[str] | None) -> dict[str, str]:
    secret_values = {}
    for name in names or []:
        if not name.isidentifier():
            raise BadInputError("--secret takes the name of a variable of your environment, never a value")
        if name not in os.environ:
            raise BadInputError(f"--secret {name}: there is no such variable in your environment; export it first")
        secret_values[name] = os.environ[name]
    return secret_values
