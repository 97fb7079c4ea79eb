"""docs/configuration.md says what the classes say that read the configs."""

from training.reference import PATH, document


def test_the_reference_is_that_of_the_classes() -> None:
    assert PATH.read_text() == document(), "run python -m training.reference"


def test_every_key_is_described() -> None:
    rows = [line for line in document().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert not [row for row in rows if row.endswith("|  |")]
