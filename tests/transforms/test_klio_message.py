import os
import pickle

import cloudpickle
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from beamsplitter.transforms.klio.message import (
    KlioJob,
    KlioMessage,
    KlioMessageError,
    Version,
    array_from_bytes,
    array_to_bytes,
    new_message,
    parse_message,
    with_payload,
)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field, by hand."""
    assert number < 16
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def flag(number: int, value: int = 1) -> bytes:
    return bytes([number << 3, value])


ANYONE = field(6, field(1, b""))
JOB = field(1, b"my-job") + field(2, b"my-project")


class TestWireFormat:
    """Bytes by hand, from the field numbers of klio.proto."""

    def test_element_only(self):
        message = KlioMessage(version=2)
        message.data.element = b"x"
        assert message.SerializeToString() == b"\x12\x03\x1a\x01x\x18\x02"

    def test_new_message(self):
        encoded = new_message("x", payload="pay").SerializeToString()
        data = field(2, b"pay") + field(3, b"x")
        assert encoded == field(1, ANYONE) + field(2, data) + flag(3, 2)

    def test_new_message_for_one_job(self):
        job = KlioJob(job_name="my-job", gcp_project="my-project")
        encoded = new_message(b"x", recipients=[job]).SerializeToString()
        limited = field(6, field(2, field(1, JOB)))
        assert encoded == field(1, limited) + field(2, field(3, b"x")) + flag(3, 2)

    def test_limited_to_nobody_is_not_anyone(self):
        encoded = new_message(b"x", recipients=[]).SerializeToString()
        assert parse_message(encoded).metadata.intended_recipients.HasField("limited")

    def test_version_1(self):
        encoded = new_message("x", version=1).SerializeToString()
        assert encoded == field(2, field(1, b"x")) + flag(3, 1)

    def test_anyone_is_an_empty_message_that_is_there(self):
        recipients = parse_message(field(1, ANYONE) + flag(3, 2)).metadata.intended_recipients
        assert recipients.WhichOneof("recipients") == "anyone"
        assert not parse_message(flag(3, 2)).metadata.intended_recipients.HasField("anyone")

    def test_last_of_a_oneof_wins(self):
        both = field(6, field(1, b"") + field(2, field(2, JOB)))
        recipients = parse_message(field(1, both) + flag(3, 2)).metadata.intended_recipients
        assert recipients.WhichOneof("recipients") == "limited"
        assert recipients.limited.trigger_children_of.gcp_project == "my-project"

    def test_every_field_of_metadata(self):
        job_input = field(3, field(1, b"t") + field(2, b"s") + field(3, b"d"))
        audit_item = field(1, flag(1, 5) + flag(2, 6)) + field(2, JOB)
        metadata = (
            field(1, JOB + job_input) + field(2, JOB) + field(3, audit_item) + flag(4) + flag(5)
        )
        encoded = field(1, metadata) + flag(3, 2)
        message = parse_message(encoded)
        assert message.metadata.downstream[0].inputs[0].topic == "t"
        assert message.metadata.downstream[0].inputs[0].subscription == "s"
        assert message.metadata.downstream[0].inputs[0].data_location == "d"
        assert message.metadata.visited[0].job_name == "my-job"
        assert message.metadata.job_audit_log[0].timestamp.seconds == 5
        assert message.metadata.job_audit_log[0].timestamp.nanos == 6
        assert message.metadata.job_audit_log[0].klio_job.job_name == "my-job"
        assert message.metadata.force
        assert message.metadata.ping
        assert message.SerializeToString() == encoded

    def test_fields_of_a_later_klio_are_kept(self):
        encoded = field(2, field(3, b"x")) + flag(3, 2) + field(9, b"new")
        assert with_payload(parse_message(encoded), None).SerializeToString() == encoded


class TestVersion:
    @pytest.mark.parametrize(
        ("data", "version", "element"),
        [
            (field(1, b"id"), Version.V1, b"id"),
            (field(2, b"payload"), Version.V1, b""),
            (field(3, b"el"), Version.V2, b"el"),
            (field(1, b"id") + field(3, b"el"), Version.UNKNOWN, b"el"),
        ],
    )
    def test_without_a_version(self, data, version, element):
        message = parse_message(field(2, data))
        assert message.version == version
        assert message.data.element == element

    def test_neither_but_metadata(self):
        assert parse_message(field(1, ANYONE)).version == Version.V1

    # The last one sets the version to what it is anyway.
    @pytest.mark.parametrize("data", [b"", field(2, b""), flag(3, 0)])
    @pytest.mark.parametrize("allow", [False, True])
    def test_with_nothing_set(self, data, allow):
        message = parse_message(data, allow_non_klio=allow)
        assert message.version == Version.V1
        assert message.data.element == b""
        assert not message.metadata.HasField("intended_recipients")

    def test_version_1_gets_an_element(self):
        message = parse_message(field(2, field(1, "ü".encode())) + flag(3, 1))
        assert message.version == Version.V1
        assert message.data.element == "ü".encode()

    def test_version_2_stays_as_it_is(self):
        message = parse_message(field(2, field(1, b"id")) + flag(3, 2))
        assert message.version == Version.V2
        assert message.data.element == b""

    def test_later_version(self):
        with pytest.raises(KlioMessageError, match="version 3"):
            parse_message(field(2, field(3, b"x")) + flag(3, 3))

    @pytest.mark.parametrize("version", [0, 3])
    def test_new_message_of_no_version(self, version):
        with pytest.raises(KlioMessageError, match="version 1 or 2"):
            new_message("x", version=version)

    def test_version_1_has_no_payload(self):
        with pytest.raises(KlioMessageError, match="version 2"):
            new_message("x", payload=b"p", version=1)


class TestNotAMessage:
    # "hi" and "01" are valid protobuf: a field that klio.proto does not have.
    # A line feed is the tag of the metadata.
    @pytest.mark.parametrize(
        "data",
        [
            b"hi",
            b"01",
            b"song.wav",
            b"\xff\xff",
            b"\x12\x05x",
            b"hi\n\nhihihihihi",
            b"\n\nhihihihihi",
        ],
    )
    def test_is_refused(self, data):
        with pytest.raises(KlioMessageError, match="allow_non_klio_messages"):
            parse_message(data)

    @pytest.mark.parametrize("data", [b"hi", b"song.wav", b"\xff\xff"])
    def test_is_taken_for_an_element(self, data):
        assert parse_message(data, allow_non_klio=True) == new_message(data)

    @given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
    @example("hi")
    @example("81")
    def test_no_text_is_taken_for_a_message(self, text):
        with pytest.raises(KlioMessageError):
            parse_message(text.encode())
        assert parse_message(text.encode(), allow_non_klio=True).data.element == text.encode()

    @given(st.binary())
    def test_any_bytes(self, data):
        try:
            message = parse_message(data)
        except KlioMessageError:
            message = parse_message(data, allow_non_klio=True)
            assert message.data.element == data
        assert message.version in tuple(Version)

    def test_a_message_stays_a_message_when_others_are_allowed(self):
        message = new_message("x", payload=b"p")
        assert parse_message(message.SerializeToString(), allow_non_klio=True) == message

    def test_text_that_is_not_bytes(self):
        with pytest.raises(KlioMessageError, match="bytes, not str"):
            parse_message("song.wav", allow_non_klio=True)


class TestPayload:
    @pytest.mark.parametrize(
        ("value", "payload"),
        [
            (b"new", b"new"),
            ("ü", "ü".encode()),
            (bytearray(b"new"), b"new"),
            (memoryview(b"new"), b"new"),
            (None, b""),
            (b"", b""),
            ("", b""),
        ],
    )
    def test_becomes_bytes(self, value, payload):
        assert with_payload(new_message("x", payload=b"old"), value).data.payload == payload

    def test_own_data_clears_it(self):
        message = new_message("x", payload=b"old")
        assert with_payload(message, message.data).data.payload == b""

    def test_array(self):
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        payload = with_payload(new_message("x"), array).data.payload
        np.testing.assert_array_equal(array_from_bytes(payload), array)

    @pytest.mark.parametrize("value", [{"a": 1}, [b"x"], 3, object(), new_message("other").data])
    def test_other_types(self, value):
        with pytest.raises(TypeError, match=type(value).__name__):
            with_payload(new_message("x"), value)

    def test_message_is_not_changed(self):
        message = new_message("x", payload=b"old")
        with_payload(message, b"new")
        assert message.data.payload == b"old"

    def test_the_rest_is_kept(self):
        message = new_message("x", payload=b"old")
        message.metadata.force = True
        changed = with_payload(message, b"new")
        changed.data.payload = b"old"
        assert changed == message

    @pytest.mark.parametrize("version", [0, 1])
    def test_of_version_1_never_changes(self, version):
        message = new_message("x", payload=b"old")
        message.version = version
        assert with_payload(message, b"new") == message


class TestArrays:
    @given(
        numpy_strategies.arrays(
            st.one_of(
                numpy_strategies.floating_dtypes(),
                numpy_strategies.complex_number_dtypes(),
                numpy_strategies.integer_dtypes(),
                numpy_strategies.boolean_dtypes(),
            ),
            numpy_strategies.array_shapes(min_dims=0, min_side=0),
        )
    )
    def test_round_trip(self, array):
        back = array_from_bytes(array_to_bytes(array))
        assert back.dtype == array.dtype
        assert back.tobytes() == array.tobytes()
        assert back.shape == array.shape

    def test_column_order_and_writeable(self):
        array = np.asfortranarray(np.arange(6).reshape(2, 3))
        back = array_from_bytes(array_to_bytes(array))
        back *= 2
        np.testing.assert_array_equal(back, 2 * array)

    def test_slices(self):
        array = np.arange(10)[::-3]
        np.testing.assert_array_equal(array_from_bytes(array_to_bytes(array)), array)

    @pytest.mark.parametrize("array", [np.array([{}]), np.zeros(0, object), np.zeros(1, "f4,O")])
    def test_objects_are_not_stored(self, array):
        with pytest.raises(KlioMessageError, match="objects"):
            array_to_bytes(array)

    def test_pickles_are_not_loaded(self, tmp_path):
        class Exploit:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "executed"),)

        np.save(tmp_path / "exploit.npy", np.array([Exploit()]), allow_pickle=True)
        for data in (tmp_path / "exploit.npy").read_bytes(), pickle.dumps(Exploit()):
            with pytest.raises(KlioMessageError, match="npy"):
                array_from_bytes(data)
        assert not (tmp_path / "executed").exists()

    @given(st.binary())
    @example(b"\x93NUMPY\x01\x00\x02\x00[]")
    def test_other_bytes(self, data):
        with pytest.raises(KlioMessageError):
            array_from_bytes(data)
        with pytest.raises(KlioMessageError):
            array_from_bytes(b"\x93NUMPY\x01\x00" + data)

    def test_cut_off_or_too_long(self):
        data = array_to_bytes(np.arange(5))
        for other in data[:-1], data + b"x", b"":
            with pytest.raises(KlioMessageError):
                array_from_bytes(other)


def test_messages_pickle():
    message = new_message("x", payload=b"p")
    assert pickle.loads(pickle.dumps(message)) == message
    assert cloudpickle.loads(cloudpickle.dumps([message, KlioMessage]))[0] == message
