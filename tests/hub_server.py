"""A server that speaks the parts of the Hugging Face Hub's HTTP API that the studio uses, in memory.

`python -m tests.hub_server PORT` serves it; `hub_fixtures.hub` starts it. Where the real Hub checks something (tokens,
sha256 of uploads, parents of commits, front matter of README.md) so does this one. Files are uploaded through LFS; xet
has to be off (HF_HUB_DISABLE_XET=1). Under /_test it says what was asked of it and can be told to fail.
"""

import hashlib
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse

from tests.hub_commits import commit_from, front_matter_problems
from tests.hub_repository import HubFile, HubProblem, HubRepository, upload_mode

TOKEN = "hf_a_token_of_the_test_hub"
USER = "tester"
PAGE = 50
PREFIX = {"model": "", "dataset": "datasets/", "space": "spaces/"}


class Hub:
    """Everything the server holds."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], HubRepository] = {}
        self.buckets: dict[str, dict[str, Any]] = {}
        self.uploads: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.failing: list[int] = []

    def get(self, kind: str, namespace: str, name: str) -> HubRepository:
        repository = self.repositories.get((kind.removesuffix("s"), f"{namespace}/{name}"))
        if repository is None:
            raise HubProblem(404, "RepoNotFound", f"{kind} {namespace}/{name} not found")
        return repository


def hub_app() -> FastAPI:
    app = FastAPI(openapi_url=None)
    hub = Hub()
    app.state.hub = hub

    @app.middleware("http")
    async def checked(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        path = request.url.path
        if path.startswith(("/_test", "/lfs/")):
            return await answer(request)
        hub.asked[f"{request.method} {path}"] += 1
        if hub.failing:
            return JSONResponse({"error": "told to fail"}, hub.failing.pop(0))
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return _problem(HubProblem(401, "Unauthorized", "Invalid credentials in Authorization header"))
        return await answer(request)

    @app.exception_handler(HubProblem)
    async def refused(_: Request, problem: HubProblem) -> Response:
        return _problem(problem)

    for router in (_of_tests(hub), _accounts(hub), _spaces(hub), _contents(hub), _files(hub)):
        app.include_router(router)
    return app


def _problem(problem: HubProblem) -> JSONResponse:
    headers = {"X-Error-Code": problem.code, "X-Error-Message": problem.message}
    return JSONResponse({"error": problem.message}, problem.status, headers=headers)


def _of_tests(hub: Hub) -> APIRouter:
    router = APIRouter(prefix="/_test")

    @router.get("/asked")
    def asked() -> dict[str, int]:
        return dict(hub.asked)

    @router.post("/reset")
    def reset() -> None:
        hub.repositories.clear()
        hub.buckets.clear()
        hub.uploads.clear()
        hub.asked.clear()
        hub.failing.clear()

    @router.post("/fail")
    def fail(status: int, times: int) -> None:
        hub.failing = [status] * times

    @router.get("/secrets/{namespace}/{name}")
    def secrets(namespace: str, name: str) -> dict[str, str]:
        return {key: entry["value"] for key, entry in hub.get("space", namespace, name).secrets.items()}

    return router


def _accounts(hub: Hub) -> APIRouter:
    router = APIRouter(prefix="/api")

    @router.get("/whoami-v2")
    def whoami() -> dict[str, Any]:
        access = {"accessToken": {"role": "write", "displayName": "test"}}
        return {"type": "user", "id": "1", "name": USER, "fullname": USER, "orgs": [], "auth": access}

    @router.post("/repos/create")
    async def create(request: Request) -> Response:
        wanted = await request.json()
        kind, repository_id = wanted.get("type") or "model", f"{wanted['organization'] or USER}/{wanted['name']}"
        url = f"{request.base_url}{PREFIX[kind]}{repository_id}"
        if (kind, repository_id) in hub.repositories:
            return JSONResponse({"error": "You already created this repo", "url": url}, 409)
        made = HubRepository(kind, repository_id, wanted.get("visibility") == "private", wanted.get("sdk"))
        made.hardware = wanted.get("hardware") or made.hardware
        made.volumes = wanted.get("volumes") or []
        for name in ("secrets", "variables"):
            getattr(made, name).update({entry["key"]: entry for entry in wanted.get(name) or []})
        hub.repositories[kind, repository_id] = made
        return JSONResponse({"url": url, "name": repository_id, "id": repository_id})

    @router.delete("/repos/delete")
    async def delete(request: Request) -> None:
        wanted = await request.json()
        key = (wanted.get("type") or "model", f"{wanted['organization'] or USER}/{wanted['name']}")
        if hub.repositories.pop(key, None) is None:
            raise HubProblem(404, "RepoNotFound", f"{key} not found")

    @router.post("/validate-yaml")
    async def validate(request: Request) -> Response:
        wanted = await request.json()
        problems = front_matter_problems(wanted["content"], wanted["repoType"])
        return JSONResponse(
            {"errors": [{"message": text} for text in problems], "warnings": []}, 400 if problems else 200
        )

    @router.post("/buckets/{namespace}/{name}")
    async def create_bucket(namespace: str, name: str, request: Request) -> Response:
        wanted, bucket = await request.json(), f"{USER if namespace == 'me' else namespace}/{name}"
        url = f"{request.base_url}buckets/{bucket}"
        if bucket in hub.buckets:
            return JSONResponse({"error": "bucket exists", "url": url}, 409)
        hub.buckets[bucket] = {
            "id": bucket,
            "private": wanted.get("visibility") == "private",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "size": 0,
            "totalFiles": 0,
        }
        return JSONResponse({"url": url})

    @router.get("/buckets/{namespace}/{name}")
    def bucket(namespace: str, name: str) -> dict[str, Any]:
        if f"{namespace}/{name}" not in hub.buckets:
            raise HubProblem(404, "RepoNotFound", f"bucket {namespace}/{name} not found")
        return hub.buckets[f"{namespace}/{name}"]

    return router


def _spaces(hub: Hub) -> APIRouter:
    router = APIRouter(prefix="/api/spaces/{namespace}/{name}")

    def settings(space: HubRepository, what: str) -> dict[str, dict[str, Any]]:
        if what not in ("secrets", "variables"):
            raise HubProblem(404, "NotFound", f"no {what} of a Space")
        entries: dict[str, dict[str, Any]] = getattr(space, what)
        return entries

    def shown(space: HubRepository, what: str) -> dict[str, dict[str, Any]]:
        hidden = {"value"} if what == "secrets" else set()
        return {
            key: {name: value for name, value in entry.items() if name not in hidden}
            for key, entry in settings(space, what).items()
        }

    @router.get("/runtime")
    def runtime(namespace: str, name: str) -> dict[str, Any]:
        return hub.get("space", namespace, name).runtime()

    @router.post("/{what:path}")
    async def change(namespace: str, name: str, what: str, request: Request) -> Any:
        space, wanted = hub.get("space", namespace, name), None
        if what in ("secrets", "variables"):
            wanted = await request.json()
            settings(space, what)[wanted["key"]] = wanted
            return shown(space, what)
        if what == "hardware":
            wanted = await request.json()
            space.hardware = wanted["flavor"]
            space.sleep_seconds = wanted.get("sleepTimeSeconds", space.sleep_seconds)
            return space.runtime()
        if what in ("restart", "pause"):
            return space.runtime()
        return await _changed(hub, space, what, request)

    @router.put("/volumes")
    async def volumes(namespace: str, name: str, request: Request) -> None:
        space, wanted = hub.get("space", namespace, name), (await request.json())["volumes"]
        for volume in wanted:
            if volume["type"] == "bucket" and volume["source"] not in hub.buckets:
                raise HubProblem(404, "RepoNotFound", f"bucket {volume['source']} not found")
        space.volumes = wanted

    @router.get("/{what}")
    def listed(namespace: str, name: str, what: str) -> Any:
        space = hub.get("space", namespace, name)
        return _refs(space) if what == "refs" else shown(space, what)

    @router.delete("/{what}")
    async def forget(namespace: str, name: str, what: str, request: Request) -> Any:
        space = hub.get("space", namespace, name)
        if what == "volumes":
            space.volumes = []
            return None
        settings(space, what).pop((await request.json())["key"], None)
        return shown(space, what)

    return router


def _refs(repository: HubRepository) -> dict[str, Any]:
    def listed(names: dict[str, str], folder: str) -> list[dict[str, str]]:
        return [{"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": oid} for name, oid in names.items()]

    return {"branches": listed(repository.branches, "heads"), "tags": listed(repository.tags, "tags"), "converts": []}


async def _changed(hub: Hub, repository: HubRepository, what: str, request: Request) -> Any:
    """A POST under /api/KIND/USER/NAME/: preupload, commit, paths-info, branch or tag."""
    verb, _, rest = what.partition("/")
    if verb == "preupload":
        files = repository.at(rest).files
        answer = []
        for file in (await request.json())["files"]:
            mode = upload_mode(file["path"], file["size"], _sample(file["sample"]))
            known = files.get(file["path"])
            oid = None if known is None else known.etag
            answer.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answer}
    if verb == "commit":
        made = commit_from(await request.body(), repository, rest, hub.uploads)
        return {
            "commitUrl": f"{request.base_url}{PREFIX[repository.kind]}{repository.id}/commit/{made.oid}",
            "commitOid": made.oid,
        }
    if verb == "paths-info":
        files = repository.at(rest).files
        return [files[path].listed(path) for path in (await request.form()).getlist("paths") if path in files]
    if verb not in ("branch", "tag"):
        raise HubProblem(404, "NotFound", f"this hub has no {what}")
    wanted = await request.json()
    names, name = (repository.branches, rest) if verb == "branch" else (repository.tags, wanted["tag"])
    if name in names:
        raise HubProblem(409, "Conflict", f"Reference already exists: {name}")
    names[name] = repository.at(wanted.get("startingPoint", "main") if verb == "branch" else rest).oid
    return {}


def _sample(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


def _contents(hub: Hub) -> APIRouter:
    router = APIRouter(prefix="/api/{kind}/{namespace}/{name}")

    @router.get("/refs")
    def refs(kind: str, namespace: str, name: str) -> dict[str, Any]:
        return _refs(hub.get(kind, namespace, name))

    @router.get("")
    @router.get("/revision/{revision:path}")
    def info(kind: str, namespace: str, name: str, revision: str = "main") -> dict[str, Any]:
        return hub.get(kind, namespace, name).info(revision)

    @router.get("/commits/{revision:path}")
    def commits(kind: str, namespace: str, name: str, revision: str) -> list[dict[str, Any]]:
        return [
            {"id": commit.oid, "title": commit.title, "message": "", "authors": [], "date": commit.at.isoformat()}
            for commit in hub.get(kind, namespace, name).history(revision)
        ]

    @router.get("/tree/{revision}")
    @router.get("/tree/{revision}/{folder:path}")
    def tree(
        kind: str,
        namespace: str,
        name: str,
        revision: str,
        request: Request,
        folder: str = "",
        recursive: bool = False,
        cursor: int = 0,
    ) -> Response:
        entries = hub.get(kind, namespace, name).tree(revision, folder, recursive=recursive)
        following = request.url.include_query_params(cursor=cursor + PAGE)
        headers = {"Link": f'<{following}>; rel="next"'} if cursor + PAGE < len(entries) else {}
        return JSONResponse(entries[cursor : cursor + PAGE], headers=headers)

    @router.post("/{what:path}")
    async def change(kind: str, namespace: str, name: str, what: str, request: Request) -> Any:
        return await _changed(hub, hub.get(kind, namespace, name), what, request)

    @router.delete("/{what}/{reference:path}")
    def forget(kind: str, namespace: str, name: str, what: str, reference: str) -> None:
        repository = hub.get(kind, namespace, name)
        names = repository.branches if what == "branch" else repository.tags
        if names.pop(reference, None) is None:
            raise HubProblem(404, "RevisionNotFound", f"{what} {reference} not found")

    return router


def _files(hub: Hub) -> APIRouter:
    router = APIRouter()

    async def batch(request: Request) -> Response:
        objects = []
        for wanted in (await request.json())["objects"]:
            actions = {"upload": {"href": f"{request.base_url}lfs/{wanted['oid']}"}}
            objects.append(wanted | ({} if wanted["oid"] in hub.uploads else {"actions": actions}))
        return JSONResponse({"transfer": "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")

    @router.put("/lfs/{oid}")
    async def upload(oid: str, request: Request) -> None:
        data = await request.body()
        if hashlib.sha256(data).hexdigest() != oid:
            raise HubProblem(400, "BadRequest", f"what was uploaded is not {oid}")
        hub.asked["PUT /lfs"] += 1
        hub.uploads[oid] = data

    def resolve(kind: str, namespace: str, name: str, revision: str, path: str, request: Request) -> Response:
        commit = hub.get(kind, namespace, name).at(revision)
        file: HubFile | None = commit.files.get(path)
        if file is None:
            raise HubProblem(404, "EntryNotFound", f"{path} does not exist on {revision!r}")
        headers = {"ETag": f'"{file.etag}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        start, partial = 0, request.headers.get("range", "")
        if partial.startswith("bytes="):
            start = int(partial.removeprefix("bytes=").split("-")[0])
            headers["Content-Range"] = f"bytes {start}-{len(file.data) - 1}/{len(file.data)}"
        headers["Content-Length"] = str(len(file.data) - start)
        body = b"" if request.method == "HEAD" else file.data[start:]
        return Response(body, 206 if partial else 200, headers=headers, media_type="application/octet-stream")

    for kind, prefix in PREFIX.items():

        def resolved(
            namespace: str, name: str, revision: str, path: str, request: Request, kind: str = kind
        ) -> Response:
            return resolve(kind, namespace, name, revision, path, request)

        at = f"/{prefix}{{namespace}}/{{name}}"
        router.add_api_route(f"{at}.git/info/lfs/objects/batch", batch, methods=["POST"])
        router.add_api_route(f"{at}/resolve/{{revision}}/{{path:path}}", resolved, methods=["GET", "HEAD"])
    return router


if __name__ == "__main__":
    uvicorn.run(hub_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
