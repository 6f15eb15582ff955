"""What the server says about itself in OpenAPI is so: schemathesis makes requests from it."""
import pytest

from retrieval.server.app import create_app

CHECKS = ('not_a_server_error', 'status_code_conformance', 'content_type_conformance',
          'response_schema_conformance')
HOST = {'host': '127.0.0.1'}


def fitting(value, name=''):
    """The same with rows that there are, of which a request seldom guesses one."""
    if isinstance(value, dict):
        return {key: fitting(one, key) for key, one in value.items()}
    if isinstance(value, list):
        if name == 'vector':
            return [1.0] * 12 if len(value) % 2 else value
        return [fitting(one, name) for one in value]
    if name in ('row', 'rows', 'keep', 'others') and isinstance(value, int):
        return value % 6
    return value


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['folder', 'store'])
def test_no_failure_and_no_undocumented_status(kind, request):
    schemathesis = pytest.importorskip('schemathesis')
    from hypothesis import HealthCheck, Phase, given, settings
    service = request.getfixturevalue(f'{kind}_service')
    app = create_app(service)
    schema = schemathesis.openapi.from_asgi('/openapi.json', app, headers=HOST)
    checks = schemathesis.checks.CHECKS.get_by_names(CHECKS)
    assert len(checks) == len(CHECKS)
    seen = 0
    for operation in schema.get_all_operations():
        @settings(max_examples=40, deadline=None, derandomize=True, database=None,
                  suppress_health_check=list(HealthCheck), phases=[Phase.generate])
        @given(case=operation.ok().as_strategy())
        def asked(case):
            case.body, case.path_parameters = map(fitting, (case.body, case.path_parameters))
            case.call_and_validate(headers=HOST, checks=checks)
        asked()
        seen += 1
    assert seen > 20
    answered = {path for (_, path, status), _ in app.metrics.requests.items() if status == 200}
    assert len(answered) >= 16  # and not all refused
