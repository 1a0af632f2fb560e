"""The description of the API is true of every route: errors, methods, and whether a token is needed."""

from typing import Any

import pytest

from tests.web.api_studio import ApiStudio

METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS")
PROBLEM = {"$ref": "#/components/schemas/Problem"}
Described = dict[str, Any]


@pytest.fixture(scope="module")
def described(shared_studio: ApiStudio) -> Described:
    answer: Described = shared_studio.client.get("/api/v1/openapi.json").json()
    return answer


def operations(described: Described) -> list[tuple[str, str, Described]]:
    return [
        (path, method.upper(), operation)
        for path, of_path in described["paths"].items()
        for method, operation in of_path.items()
    ]


def some_path(template: str) -> str:
    return template.replace("{", "").replace("}", "")


def test_every_error_of_every_operation_is_described_as_the_one_shape(described: Described) -> None:
    assert len(operations(described)) > 40
    for path, method, operation in operations(described):
        errors = {status: one for status, one in operation["responses"].items() if int(status) >= 400}
        assert {"422", "500", "503"} <= set(errors), (method, path)
        for status, answer in errors.items():
            assert answer["content"]["application/json"]["schema"] == PROBLEM, (method, path, status)
    assert not {"HTTPValidationError", "ValidationError"} & set(described["components"]["schemas"])


def test_a_method_that_a_path_lacks_is_405_with_all_that_it_has(shared_studio: ApiStudio, described: Described) -> None:
    for template, of_path in described["paths"].items():
        has = {method.upper() for method in of_path}
        for method in set(METHODS) - has:
            answer = shared_studio.client.request(method, some_path(template))
            others = any(
                method in {one.upper() for one in others}
                for other, others in described["paths"].items()
                if other != template and other.count("/") == template.count("/") and "{" in other
            )
            if answer.status_code != 405 and others:
                continue  # a template of another path is met by the made-up one
            assert (answer.status_code, answer.json()["code"]) == (405, "wrong_method"), (method, template)
            assert set(answer.headers["allow"].split(", ")) >= has, (method, template)


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/", "/api/v1/nothing", "/api/v1/votes/1/2/3", "/api/v2/status"])
def test_a_path_that_is_none_is_404_in_the_one_shape(shared_studio: ApiStudio, path: str) -> None:
    answer = shared_studio.client.get(path, follow_redirects=False)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_token_is_described_as_needed_just_where_it_is(shared_studio: ApiStudio, described: Described) -> None:
    optional = []
    for path, method, operation in operations(described):
        security = operation.get("security", [])
        status = shared_studio.client.request(method, some_path(path), json={}).status_code
        if security and {} not in security:
            assert status in (401, 422), (method, path, "needs a token")
        else:
            assert status != 401, (method, path, "needs none")
        if {} in security:
            optional.append(path)
    assert "/api/v1/login/session" in optional
    assert set(described["components"]["securitySchemes"]) == {"annotator", "administrator"}
