"""What pydantic found wrong is told in the words of the project."""

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from beamsplitter.validation import problems_of


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid")

    count: int = Field(1, ge=1)
    names: list[str] = []


class Whole(BaseModel):
    section: Section


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "section: is required, and not there"),
        ({"section": {"cuont": 1}}, "section.cuont: unknown key"),
        ({"section": {"count": 0}}, "section.count: must be greater than or equal to 1, not 0"),
        ({"section": {"count": "x"}}, "section.count: must be a valid integer, not 'x'"),
        ({"section": 3}, "section: must hold keys with values"),
        ({"section": {"names": {"a": 1}}}, "section.names: must be a valid list"),
    ],
)
def test_problems_are_told_with_their_places(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as error:
        Whole.model_validate(given)
    assert problems_of(error.value) == [told]
