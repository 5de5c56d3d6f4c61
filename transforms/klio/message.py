"""The Klio message: the envelope of every event, in Klio's own wire format.

A message holds an `element` (what to work on, such as a file's name), a `payload` (what the last
step made of it) and metadata (who shall process it, audit log). Any Klio job reads what this module
writes, and the other way round:

>>> message = new_message("song.wav")
>>> message.data.element
b'song.wav'
>>> parse_message(message.SerializeToString()) == message
True
"""

import enum
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.message import DecodeError, Message

from ...errors import BeamsplitterError


class KlioMessageError(BeamsplitterError, ValueError):
    """Bytes that are no Klio message or no array, or a message that can't be written."""


class Version(enum.IntEnum):
    """The version of a message. V1 has `entity_id`, V2 has `element` and `payload`."""

    UNKNOWN = 0
    V1 = 1
    V2 = 2


# klio.proto as a table: message -> (field, number, type). `?` marks the fields of its one oneof.
_KLIO_PROTO: dict[str, list[tuple[str, int, str]]] = {
    "KlioMessage": [
        ("metadata", 1, "Metadata"),
        ("data", 2, "Data"),
        ("version", 3, "Version"),
    ],
    "Metadata": [
        ("downstream", 1, "repeated KlioJob"),
        ("visited", 2, "repeated KlioJob"),
        ("job_audit_log", 3, "repeated KlioJobAuditLogItem"),
        ("force", 4, "bool"),
        ("ping", 5, "bool"),
        ("intended_recipients", 6, "Recipients"),
    ],
    "Recipients": [("anyone", 1, "?Anyone"), ("limited", 2, "?Limited")],
    "Anyone": [],
    "Limited": [("recipients", 1, "repeated KlioJob"), ("trigger_children_of", 2, "KlioJob")],
    "Data": [("entity_id", 1, "string"), ("payload", 2, "bytes"), ("element", 3, "bytes")],
    "KlioJob": [
        ("job_name", 1, "string"),
        ("gcp_project", 2, "string"),
        ("inputs", 3, "repeated JobInput"),
    ],
    "JobInput": [
        ("topic", 1, "string"),
        ("subscription", 2, "string"),
        ("data_location", 3, "string"),
    ],
    "KlioJobAuditLogItem": [
        ("timestamp", 1, "google.protobuf.Timestamp"),
        ("klio_job", 2, "KlioJob"),
    ],
}


def _describe_file() -> descriptor_pb2.FileDescriptorProto:
    field_proto = descriptor_pb2.FieldDescriptorProto
    scalars = {
        "string": field_proto.TYPE_STRING,
        "bytes": field_proto.TYPE_BYTES,
        "bool": field_proto.TYPE_BOOL,
        "Version": field_proto.TYPE_ENUM,
    }
    file = descriptor_pb2.FileDescriptorProto(
        name="klio.proto", syntax="proto3", dependency=[timestamp_pb2.DESCRIPTOR.name]
    )
    version = file.enum_type.add(name="Version")
    for member in Version:
        version.value.add(name=member.name, number=member.value)
    for message_name, fields in _KLIO_PROTO.items():
        message = file.message_type.add(name=message_name)
        for name, number, declared in fields:
            type_name = declared.removeprefix("repeated ").removeprefix("?")
            field = message.field.add(name=name, number=number)
            field.label = (
                field_proto.LABEL_REPEATED
                if declared.startswith("repeated ")
                else field_proto.LABEL_OPTIONAL
            )
            field.type = scalars.get(type_name, field_proto.TYPE_MESSAGE)
            if field.type in (field_proto.TYPE_MESSAGE, field_proto.TYPE_ENUM):
                field.type_name = f".{type_name}"
            if declared.startswith("?"):
                if not message.oneof_decl:
                    message.oneof_decl.add(name="recipients")
                field.oneof_index = 0
    return file


def _build_classes() -> dict[str, type[Message]]:
    # A pool of our own: an installed Klio registers the same names in the default one.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(_describe_file().SerializeToString())
    classes = {}
    for name in _KLIO_PROTO:
        cls = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
        cls.__module__ = __name__  # pickle looks the class up here
        classes[name] = cls
    return classes


if TYPE_CHECKING:

    class KlioMessage(Message, Any): ...

    class Metadata(Message, Any): ...

    class Recipients(Message, Any): ...

    class Anyone(Message, Any): ...

    class Limited(Message, Any): ...

    class Data(Message, Any): ...

    class KlioJob(Message, Any): ...

    class JobInput(Message, Any): ...

    class KlioJobAuditLogItem(Message, Any): ...

else:
    globals().update(_build_classes())


def new_message(
    element: str | bytes,
    *,
    payload: str | bytes | np.ndarray | None = None,
    version: int = Version.V2,
    recipients: Sequence[KlioJob] | None = None,
) -> KlioMessage:
    """A message about one element; `.SerializeToString()` gives its bytes.

    Parameters
    ----------
    element
        what to work on; text is encoded as UTF-8.
    payload
        what the first step receives besides; an array is stored as npy.
    version
        2, or 1 for an old job that reads `entity_id` (text, nothing else).
    recipients
        the only jobs that shall process it; None means any job.
    """
    encoded = element.encode() if isinstance(element, str) else bytes(element)
    message = KlioMessage(version=version)
    if version == Version.V1:
        if payload is not None or recipients is not None:
            raise KlioMessageError("Payload and recipients came with version 2 of the message.")
        message.data.entity_id = encoded.decode()
        return message
    if version != Version.V2:
        raise KlioMessageError(f"A new message has version 1 or 2, not {version!r}.")
    message.data.element = encoded
    intended = message.metadata.intended_recipients
    if recipients is None:
        intended.anyone.SetInParent()
    else:
        intended.limited.SetInParent()
        intended.limited.recipients.extend(recipients)
    return with_payload(message, payload)


def parse_message(data: bytes, *, allow_non_klio: bool = False) -> KlioMessage:
    """The message that `data` encodes, with its version settled as Klio does.

    A message without a version becomes V2 if it has an element, V1 if it has an `entity_id` (which
    is copied to the element) or neither; with both it stays UNKNOWN and counts as V1. No bytes at
    all are a message with nothing set, so V1 without an element, whatever else is allowed.

    Parameters
    ----------
    data
        the bytes of one message.
    allow_non_klio
        take bytes that are no message for the element of a new one.

    Raises
    ------
    KlioMessageError
        `data` is no Klio message, and `allow_non_klio` is False.
    """
    if not isinstance(data, bytes):
        raise KlioMessageError(f"A message is bytes, not {type(data).__name__}: {data!r:.100}")
    try:
        message = _decode(data)
    except KlioMessageError:
        if not allow_non_klio:
            raise
        return new_message(data)
    _settle_version(message)
    return message


def _decode(data: bytes) -> KlioMessage:
    try:
        message = KlioMessage.FromString(data)
    except DecodeError as error:
        raise _not_a_message(data, str(error)) from error
    # Protobuf keeps what it does not know, so that much text parses: "hi" is field 13 with value
    # 105. Text without control characters can't name the fields 1 to 3, so all of it is unknown
    # fields. Those of a message come from a later Klio, which sets the version too.
    if message.version not in tuple(Version):
        raise _not_a_message(data, f"version {message.version} is not known")
    if message.version == Version.UNKNOWN and _has_unknown_fields(message):
        raise _not_a_message(data, "unknown fields and no version")
    return message


def _has_unknown_fields(message: KlioMessage) -> bool:
    known = KlioMessage()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    return known.ByteSize() != message.ByteSize()


def _not_a_message(data: bytes, reason: str) -> KlioMessageError:
    return KlioMessageError(
        f"Not a Klio message ({reason}): {data[:100]!r}{'…' if len(data) > 100 else ''}. "
        "For events that are plain text set job_config.allow_non_klio_messages to true."
    )


def _settle_version(message: KlioMessage) -> None:
    has_entity_id, has_element = bool(message.data.entity_id), bool(message.data.element)
    if message.version == Version.UNKNOWN and not (has_entity_id and has_element):
        message.version = Version.V2 if has_element else Version.V1
    if message.version == Version.V1 and has_entity_id and not has_element:
        message.data.element = message.data.entity_id.encode()


def with_payload(message: KlioMessage, value: Any) -> KlioMessage:
    """A copy of `message` that carries `value`, the result of a step, as its payload.

    Bytes are taken as they are, text as UTF-8, an array as npy. None, and the message's own data
    given back, clear the payload. A V1 message comes back unchanged.

    Raises
    ------
    TypeError
        `value` is anything else.
    """
    payload = _encode_payload(message, value)
    changed = KlioMessage()
    changed.CopyFrom(message)
    if message.version == Version.V2:
        changed.data.payload = payload
    return changed


def _encode_payload(message: KlioMessage, value: Any) -> bytes:
    if value is None or (isinstance(value, Data) and value == message.data):
        return b""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, np.ndarray):
        return array_to_bytes(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    kind = type(value)
    raise TypeError(
        f"A payload is bytes, str, a NumPy array or None, not {kind.__module__}.{kind.__qualname__}"
        ". A process that makes several outputs yields each of them."
    )


def array_to_bytes(array: np.ndarray) -> bytes:
    """The array in NumPy's npy format.

    Raises
    ------
    KlioMessageError
        the array holds Python objects, which only pickle could store.
    """
    if array.dtype.hasobject:
        raise KlioMessageError(
            f"An array of Python objects (dtype {array.dtype}) can't be stored; "
            "convert it to a numeric dtype."
        )
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
    return stream.getvalue()


def array_from_bytes(data: bytes) -> np.ndarray:
    """The array that `array_to_bytes` stored: a writeable copy. Nothing is ever unpickled.

    Raises
    ------
    KlioMessageError
        `data` is not exactly one array in npy format, or holds Python objects.
    """
    stream = io.BytesIO(data)
    try:
        array = np.lib.format.read_array(stream, allow_pickle=False)
    except Exception as error:  # a forged header can raise nearly anything
        raise KlioMessageError(f"Not an array in npy format ({data[:20]!r}…): {error}") from error
    if stream.tell() != len(data):
        raise KlioMessageError(
            f"{len(data) - stream.tell()} bytes follow the array in npy format: {data[:20]!r}…"
        )
    return array
