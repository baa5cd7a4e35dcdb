"""`tandem policy`: the admission policies as YAML, for those who deploy with kubectl or a GitOps tool."""

from __future__ import annotations

from typing import Annotated

import typer
import yaml

from tandem import admission, recovery
from tandem.checklist import Environment

Profile = Annotated[str, typer.Option(help="The recovery profile that the cluster was tuned with.")]
Env = Annotated[Environment, typer.Option("--environment", "-e", help="Whose levels apply.")]


def policy(profile: Profile, environment: Env = "prod") -> None:
    """The checklist as ValidatingAdmissionPolicies, on standard output.

    They judge what is labelled tandem-ha.io/workload in namespaces labelled tandem-ha.io/admission=warn or =deny.
    """
    try:
        chosen = recovery.profile(profile)
    except recovery.UnknownProfileError as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(yaml.safe_dump_all(admission.manifests(environment, chosen), sort_keys=False, width=120), nl=False)
