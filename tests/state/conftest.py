"""What the tests of the state share."""

from tests.contracts.conftest import clock as clock  # noqa: PLC0414 - a fixture
