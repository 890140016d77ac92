"""Requests of every kind that the server's own description allows, and of kinds that it does not."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error

from stopgrad.explorer.app import create_app

HEADERS = {"host": "127.0.0.1"}
ENDLESS = "/events$"  # a stream


def operations(runs, store):
    app = create_app(runs, store)
    described = schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)
    found = (result.ok() for result in described.exclude(path_regex=ENDLESS).get_all_operations())
    return {operation.path: operation for operation in found}


OPERATIONS = operations([], "none")
CASES = [(path, GenerationMode.POSITIVE) for path in OPERATIONS]
CASES += [(path, GenerationMode.NEGATIVE) for path, operation in OPERATIONS.items() if list(operation.query)]


@pytest.fixture(scope="session")
def described(runs, store):
    return operations(sorted(runs.iterdir()), store)


@pytest.mark.parametrize(("path", "mode"), CASES, ids=lambda value: getattr(value, "value", value))
def test_no_request_makes_the_server_fail(described, path, mode):
    # most requests are pictures, computed by the server: few draws, and none to make a failure smaller
    @settings(
        max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
    )  # fmt: skip
    @given(described[path].as_strategy(generation_mode=mode))
    def no_answer_is_a_failure(case):
        case.validate_response(case.call(headers=HEADERS), checks=[not_a_server_error])

    no_answer_is_a_failure()
