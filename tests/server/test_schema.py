"""What the server says about itself in OpenAPI is so: schemathesis makes requests from it."""
import pytest

from retrieval.server.app import create_app

CHECKS = ('not_a_server_error', 'status_code_conformance', 'content_type_conformance',
          'response_schema_conformance')


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['folder', 'store'])
def test_no_failure_and_no_undocumented_status(kind, request):
    schemathesis = pytest.importorskip('schemathesis')
    from hypothesis import HealthCheck, Phase, given, settings
    service = request.getfixturevalue(f'{kind}_service')
    app = create_app(service)
    schema = schemathesis.openapi.from_asgi('/openapi.json', app,
                                            base_url='http://127.0.0.1:8000')
    checks = [getattr(schemathesis.checks, name) for name in CHECKS
              if hasattr(schemathesis.checks, name)]
    seen = 0
    for operation in schema.get_all_operations():
        @settings(max_examples=40, deadline=None, derandomize=True, database=None,
                  suppress_health_check=list(HealthCheck), phases=[Phase.generate])
        @given(case=operation.ok().as_strategy())
        def asked(case):
            case.call_and_validate(headers={'host': '127.0.0.1'}, checks=checks)
        asked()
        seen += 1
    assert seen > 20
