"""What a message must say, whatever its words: names, numbers, keys, commands."""


def assert_names(message: object, *facts: object) -> None:
    """Fail unless each of the facts stands in the message."""
    missing = [str(fact) for fact in facts if str(fact) not in str(message)]
    assert not missing, f"{missing} not in: {message}"
