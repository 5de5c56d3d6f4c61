"""Asking the job before this one for recordings that are not there."""

import os

import apache_beam as beam

from ...transforms.klio.context import KlioContext, bind_context
from ...transforms.klio.helpers import KlioTriggerUpstream
from ...transforms.klio.message import KlioJob, parse_message
from ...transforms.records import Failure
from ..job.job_config import UpstreamJob


class TriggerUpstream(beam.PTransform):
    """Messages whose recording is not there to the topic of the job that makes it.

    Gives a failure for each that can't ask: a message of version 1 has no recipients.
    """

    def __init__(self, upstream: UpstreamJob, job: KlioJob) -> None:
        super().__init__()
        self.upstream = upstream
        self.job = job

    def expand(self, messages: beam.PCollection) -> beam.PCollection:
        """Failures."""
        trigger = KlioTriggerUpstream(self.upstream.job_name, self.upstream.gcp_project)
        bind_context(trigger, KlioContext(job=self.job))
        asked = messages | "Address" >> beam.ParDo(trigger).with_outputs("drop", main="main")
        asked.main.element_type = bytes
        asked.main | "Ask" >> beam.io.WriteToPubSub(self.upstream.topic)
        return asked["drop"] | "Refuse" >> beam.Map(self.refuse).with_output_types(Failure)

    def refuse(self, encoded: bytes) -> Failure:
        """The dead letter of a message that can't ask for its recording."""
        element = os.fsdecode(parse_message(encoded).data.element)
        return Failure(
            element=element,
            step="TriggerUpstream",
            exception="KlioMessageError",
            message=f"{element}: is not there (any more), and a message of version 1 can't ask "
            f"{self.upstream.job_name} for it",
        )
