"""Types of the JSON API for the page's scripts, from the OpenAPI description: dmpo_app/ui/static/lib/api-types.d.ts.

python scripts/api_types.py            writes them
python scripts/api_types.py --check    says whether they are up to date
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from fastapi.openapi.utils import get_openapi

from dmpo_app.settings import Settings
from dmpo_app.web.router import PREFIX, create_router

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "dmpo_app" / "ui" / "static" / "lib" / "api-types.d.ts"
HEAD = """// Types of the JSON API. Written by scripts/api_types.py from the OpenAPI description; not to be edited.

"""
_PRIMITIVES = {"string": "string", "integer": "number", "number": "number", "boolean": "boolean", "null": "null"}

Schema = Mapping[str, Any]


def openapi() -> dict[str, Any]:
    """The description of every route. No route looks at the services before a request comes, so stand-ins do."""
    router = create_router(MagicMock(settings=Settings()))
    return get_openapi(title="", version="", routes=router.routes)


def typescript(schema: Schema) -> str:
    """The type of one schema."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " | ".join(dict.fromkeys(typescript(option) for option in schema[union]))
    kind = schema.get("type")
    if kind == "array":
        return f"Array<{typescript(schema.get('items', {}))}>"
    if kind == "object":
        return _object(schema)
    return _PRIMITIVES.get(str(kind), "unknown")


def _object(schema: Schema) -> str:
    if "properties" in schema:
        return f"{{ {'; '.join(_fields(schema))} }}"
    values = schema.get("additionalProperties", {})
    return f"Record<string, {typescript(values) if isinstance(values, Mapping) else 'unknown'}>"


def _fields(schema: Schema) -> Iterator[str]:
    required = schema.get("required", ())
    for name, field in schema["properties"].items():
        yield f"{name}{'' if name in required else '?'}: {typescript(field)}"


def interface(name: str, schema: Schema) -> str:
    if "properties" not in schema:
        return f"export type {name} = {typescript(schema)};\n"
    return "\n".join([f"export interface {name} {{", *(f"  {field};" for field in _fields(schema)), "}\n"])


def operation_fields(operation: Schema) -> Iterator[str]:
    """Whatever a caller gives: `params` for the braces of the path, `query`, and a `body` of JSON or raw `content`."""
    for place, field in (("path", "params"), ("query", "query")):
        parameters = [entry for entry in operation.get("parameters", ()) if entry["in"] == place]
        if parameters:
            required = [entry["name"] for entry in parameters if entry.get("required")]
            properties = {entry["name"]: entry["schema"] for entry in parameters}
            shape = typescript({"type": "object", "properties": properties, "required": required})
            yield f"{field}{'' if required else '?'}: {shape}"
    if "requestBody" in operation:
        json_body = operation["requestBody"]["content"].get("application/json")
        yield f"body: {typescript(json_body['schema'])}" if json_body else "content: BodyInit"


def response_type(operation: Schema) -> str | None:
    """The type of a successful response, "" where it is none of JSON's; None: it has no content."""
    successes = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    contents = [content for answer in successes for content in [answer.get("content", {})] if content]
    if not contents:
        return None
    schemas = [content.get("application/json", {}).get("schema") for content in contents]
    return " | ".join(dict.fromkeys(typescript(schema) for schema in schemas if schema))


def operations(paths: Mapping[str, Schema]) -> tuple[Sequence[str], Sequence[str]]:
    """One line an operation: those that answer JSON, and those that answer a file."""
    answered, downloads = [], []
    for path, methods in paths.items():
        for method, operation in methods.items():
            fields = list(operation_fields(operation))
            name = json.dumps(f"{method.upper()} {path.removeprefix(PREFIX + '/')}")
            response = response_type(operation)
            if response:
                answered.append(f"  {name}: {{ {'; '.join([*fields, f'response: {response}'])} }};")
            elif response == "":
                downloads.append(f"  {name}: {{ {'; '.join(fields)} }};" if fields else f"  {name}: {{}};")
    return answered, downloads


def declarations() -> str:
    description = openapi()
    schemas = description["components"]["schemas"]
    interfaces = [interface(name, schema) for name, schema in schemas.items()]
    answered, downloads = operations(description["paths"])
    interfaces.append("\n".join(["export interface Operations {", *answered, "}\n"]))
    interfaces.append("\n".join(["export interface Downloads {", *downloads, "}\n"]))
    return HEAD + "\n".join(interfaces)


def main() -> int:
    if "--check" not in sys.argv[1:]:
        FILE.write_text(declarations(), encoding="utf-8")
        return 0
    if FILE.exists() and FILE.read_text(encoding="utf-8") == declarations():
        return 0
    sys.stderr.write(f"{FILE.relative_to(ROOT)} is not what the API says; run python scripts/api_types.py\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
