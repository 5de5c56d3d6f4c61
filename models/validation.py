"""What pydantic found wrong, in words."""

from pydantic import ValidationError


def problems_of(error: ValidationError) -> list[str]:
    """Each problem, behind the place that it is at, if it is at one."""
    return [
        f"{'.'.join(map(str, each['loc']))}: {each['msg']}" if each["loc"] else each["msg"]
        for each in error.errors()
    ]
