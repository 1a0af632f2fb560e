"""Commits as the Hub takes them, a line of JSON an operation, and its check of a README's front matter."""

import base64
import json

import yaml

from tests.hub_repository import HubCommit, HubFile, HubProblem, HubRepository

SHORT_DESCRIPTION = 60
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")


def commit_from(body: bytes, repository: HubRepository, branch: str, uploads: dict[str, bytes]) -> HubCommit:
    """Apply the operations to the head of `branch`, all or none. Raises HubProblem."""
    if branch not in repository.branches:
        raise HubProblem(404, "RevisionNotFound", f"Invalid rev id: {branch}")
    files, title = dict(repository.at(branch).files), ""
    for line in body.splitlines():
        operation = json.loads(line)
        key, value = operation["key"], operation["value"]
        if key == "header":
            title = value["summary"]
            if value.get("parentCommit") not in (None, repository.branches[branch]):
                raise HubProblem(
                    412, "PreconditionFailed", "A commit has happened since. Please refresh and try again."
                )
        elif key == "file":
            files[value["path"]] = HubFile(base64.b64decode(value["content"]), lfs=False)
        elif key == "lfsFile":
            if value["oid"] not in uploads:
                raise HubProblem(400, "BadRequest", f"no object {value['oid']} was uploaded for {value['path']}")
            files[value["path"]] = HubFile(uploads[value["oid"]], lfs=True)
        elif key in ("deletedFile", "deletedFolder"):
            _delete(files, value["path"])
        else:
            raise HubProblem(400, "BadRequest", f"unknown operation {key}")
    return repository.commit(branch, files, title)


def _delete(files: dict[str, HubFile], path: str) -> None:
    gone = [name for name in files if name == path or name.startswith(f"{path.rstrip('/')}/")]
    if not gone:
        raise HubProblem(404, "EntryNotFound", "A file with this name doesn't exist")
    for name in gone:
        del files[name]


def front_matter_problems(content: str, kind: str) -> list[str]:
    """The Hub's complaints about the YAML between the first two `---` of a README.md."""
    parts = content.split("---\n", 2)
    if len(parts) < 3 or parts[0]:
        return [] if kind != "space" else ["Missing configuration in README"]
    try:
        facts = yaml.safe_load(parts[1])
    except yaml.YAMLError as error:
        return [f"not YAML: {error}"]
    problems = []
    if not isinstance(facts, dict):
        return ["the front matter is no mapping"]
    if len(str(facts.get("short_description", ""))) > SHORT_DESCRIPTION:
        problems.append(f'"short_description" length must be less than or equal to {SHORT_DESCRIPTION} characters long')
    problems += [
        f'"{name}" must be one of {COLOURS}'
        for name in ("colorFrom", "colorTo")
        if facts.get(name, COLOURS[0]) not in COLOURS
    ]
    if kind == "space" and facts.get("sdk") not in ("gradio", "docker", "static"):
        problems.append('"sdk" must be one of [gradio, docker, static]')
    return problems
