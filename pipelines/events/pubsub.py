"""What can be wrong with Pub/Sub, in words."""

import contextlib
from collections.abc import Iterator

from google.api_core import exceptions as api_exceptions
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.cloud.pubsub_v1.publisher.exceptions import MessageTooLargeError

from ...errors import BeamsplitterError
from ...storage.file_facts import HOW_TO_SIGN_IN


class PubSubError(BeamsplitterError, RuntimeError):
    """A topic or a subscription that can't be used."""


@contextlib.contextmanager
def explained(place: str, *, but: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn the errors of Pub/Sub's clients into lines that say what to do.

    Parameters
    ----------
    place
        path of the topic or the subscription
    but
        errors that the caller knows what to do about

    Raises
    ------
    PubSubError
        for each of the others
    """
    try:
        yield
    except but:
        raise
    except (api_exceptions.GoogleAPIError, GoogleAuthError) as error:
        raise PubSubError(reason_of(place, error)) from error


def reason_of(place: str, error: Exception) -> str:
    """What is wrong with a place of Pub/Sub, and what to do."""
    if isinstance(error, MessageTooLargeError):
        return "is too long for a message of Pub/Sub, which holds 10 MB"
    if isinstance(error, DefaultCredentialsError):
        return f"no credentials for Google Pub/Sub: {HOW_TO_SIGN_IN}"
    if isinstance(error, GoogleAuthError):
        return f"Pub/Sub: no valid credentials: {error}; {HOW_TO_SIGN_IN}"
    if isinstance(error, api_exceptions.NotFound):
        kind = "topic" if "/topics/" in place else "subscription"
        return (
            f"{place}: there is no such {kind}: `gcloud pubsub {kind}s create` makes one; or "
            "correct the job file"
        )
    if isinstance(error, api_exceptions.Forbidden | api_exceptions.Unauthorized):
        return f"{place}: may not be used: check the roles of this account ({error.message})"
    if isinstance(error, api_exceptions.ClientError):
        return f"{place}: Pub/Sub refuses it: {error.message}: correct the job file"
    if isinstance(error, api_exceptions.RetryError):
        return f"{place}: Pub/Sub can't be reached, after many tries: {error.cause}"
    if isinstance(error, api_exceptions.ServerError):
        return (
            f"{place}: Pub/Sub can't be reached: {error.message}; check the network, and "
            "PUBSUB_EMULATOR_HOST if it is set"
        )
    return f"{place}: {error}"
