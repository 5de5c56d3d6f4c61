"""Checks of buckets, Pub/Sub and BigQuery; what is missing of the first two can be made."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.api_core import exceptions as api_exceptions
from google.auth.credentials import Credentials
from google.cloud import bigquery, pubsub_v1
from google.cloud.storage import Bucket
from google.pubsub_v1 import types

from ...storage import GCS_SCHEME, gcs
from ..job.event_config import DELETED_TOPIC, BigQueryEventOutput, BigQueryEvents
from ..job.job_config import JobConfig
from ..job.resources import NamedPlace
from .findings import Finding, Status, failed, lacking, not_made

TIMEOUT_S = 20.0
# A check asks once: what is away now can't be told of.
ONCE: dict[str, Any] = {"retry": None, "timeout": TIMEOUT_S}
ACK_DEADLINE_S = 600
SHORT_ACK_DEADLINE_S = 60
READING = ("storage.objects.get", "storage.objects.list")
WRITING = (*READING, "storage.objects.create", "storage.objects.delete")
READING_MESSAGES = ("pubsub.subscriptions.consume", "pubsub.subscriptions.get")
PUBLISHING = ("pubsub.topics.publish",)
SUBSCRIBING = ("pubsub.topics.attachSubscription",)
# Regions that belong to a multi-region, by the beginning of their names.
MULTI_REGIONS = {"US": ("us-",), "EU": ("europe-",), "ASIA": ("asia-",)}


@dataclass
class CloudChecks:
    """Checks with the credentials of whoever runs the command.

    Parameters
    ----------
    credentials
        None for those that each client finds itself
    create
        make buckets, topics and subscriptions that are missing
    """

    job: JobConfig
    credentials: Credentials | None = None
    create: bool = False

    @property
    def region(self) -> str | None:
        """The region of the job."""
        return self.job.pipeline_options.region

    @functools.cached_property
    def publisher(self) -> pubsub_v1.PublisherClient:
        """A client for topics."""
        return pubsub_v1.PublisherClient(credentials=self.credentials)

    @functools.cached_property
    def subscriber(self) -> pubsub_v1.SubscriberClient:
        """A client for subscriptions."""
        return pubsub_v1.SubscriberClient(credentials=self.credentials)

    @functools.cached_property
    def bigquery(self) -> bigquery.Client:
        """A client for tables."""
        return bigquery.Client(
            project=self.job.pipeline_options.project, credentials=self.credentials
        )

    def bucket(self, name: str, places: list[NamedPlace]) -> Iterator[Finding]:
        """A bucket is there, may be used for all these places, and lies where the job runs."""
        kind, shown = "bucket", f"{GCS_SCHEME}{name}"
        bucket = self._bucket(name)
        remark = ", ".join(dict.fromkeys(place.use for place in places))
        made = False
        try:
            bucket.reload(**ONCE)
        except api_exceptions.NotFound:
            if not self.create:
                yield Finding(kind, shown, "missing", f"{remark}: {self._how_to_make(name)}")
                return
            if not self.region:
                yield Finding(
                    kind, shown, "missing", "name pipeline_options.region: it is made there"
                )
                return
            try:
                bucket = self._make_bucket(name)
            except api_exceptions.GoogleAPIError as error:
                yield not_made(kind, shown, error)
                return
            made = True
        except api_exceptions.Forbidden:
            # Who may use the objects of a bucket need not see the bucket itself.
            pass
        wanted = {
            permission
            for place in places
            for permission in (WRITING if place.access == "write" else READING)
        }
        granted = bucket.test_iam_permissions(sorted(wanted), **ONCE)
        refused = lacking(kind, shown, wanted, granted)
        if refused:
            yield from refused
            return
        elsewhere = self._elsewhere(bucket)
        if elsewhere:
            yield Finding(kind, shown, "warning", f"{remark}: {elsewhere}")
        else:
            where = f", in {bucket.location.lower()}" if bucket.location else ""
            yield Finding(kind, shown, "created" if made else "ok", f"{remark}{where}")

    def _bucket(self, name: str) -> Bucket:
        return gcs.client().bucket(name, user_project=self.job.storage.user_project)

    def _how_to_make(self, name: str) -> str:
        where = f" --location={self.region}" if self.region else ""
        return f"--create, or gcloud storage buckets create gs://{name}{where}"

    def _make_bucket(self, name: str) -> Bucket:
        bucket = gcs.client().bucket(name)
        bucket.iam_configuration.uniform_bucket_level_access_enabled = True
        return gcs.client().create_bucket(
            bucket,
            project=self.job.pipeline_options.project,
            location=self.region,
            **ONCE,
        )

    def _elsewhere(self, bucket: Bucket) -> str:
        """What to mind about where a bucket lies; nothing if that is near the job, or unknown."""
        location = bucket.location
        if not location or not self.region or location.lower() == self.region:
            return ""
        if bucket.location_type == "dual-region":
            return ""
        if self.region.startswith(MULTI_REGIONS.get(location.upper(), ())):
            return ""
        return (
            f"lies in {location.lower()}, the job runs in {self.region}: moving audio between "
            "regions takes time and costs money"
        )

    def objects(self, place: NamedPlace) -> Iterator[Finding]:
        """A file is there; a folder holds something."""
        kind, location = place.use, place.location
        if place.kind == "file":
            bucket, name = gcs.split(location)
            blob = self._bucket(bucket).blob(name)
            if blob.exists(**ONCE):
                yield Finding(kind, location, "ok")
            else:
                yield Finding(kind, location, "missing", f"{place.key}: no such object")
            return
        bucket, prefix = gcs.split(self._folder(location))
        prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        found = gcs.client().list_blobs(self._bucket(bucket), prefix=prefix, max_results=1, **ONCE)
        if any(True for _ in found):
            yield Finding(kind, location, "ok")
        else:
            yield Finding(kind, location, "warning", "holds nothing yet")

    def _folder(self, location: str) -> str:
        """The folder that all files of a pattern lie below."""
        parts = location.split("/")
        fixed = [index for index, part in enumerate(parts) if set(part) & set("*?[")]
        return "/".join(parts[: fixed[0]]) if fixed else location

    def topic(self, topic: str, use: str, permissions: tuple[str, ...]) -> Iterator[Finding]:
        """A topic is there, and may be used."""
        made = False
        try:
            self.publisher.get_topic(topic=topic, **ONCE)
        except api_exceptions.NotFound:
            if not self.create:
                advice = f"{use}: --create, or gcloud pubsub topics create {topic}"
                yield Finding("topic", topic, "missing", advice)
                return
            try:
                self.publisher.create_topic(name=topic, **ONCE)
            except api_exceptions.GoogleAPIError as error:
                yield not_made("topic", topic, error)
                return
            made = True
        except api_exceptions.PermissionDenied:
            pass  # Who may publish need not see the topic.
        yield from self._permitted(
            Finding("topic", topic, "created" if made else "ok", use), permissions, self.publisher
        )

    def _permitted(
        self,
        found: Finding,
        permissions: tuple[str, ...],
        client: pubsub_v1.PublisherClient | pubsub_v1.SubscriberClient,
    ) -> Iterator[Finding]:
        request = {"resource": found.name, "permissions": list(permissions)}
        try:
            answer = client.test_iam_permissions(request=request, **ONCE)
        except api_exceptions.GoogleAPICallError as error:
            if isinstance(error, api_exceptions.Forbidden | api_exceptions.NotFound):
                yield failed(found.kind, found.name, error)
                return
            remark = f"{found.remark}; permissions can't be told"
            yield Finding(found.kind, found.name, found.status, remark)
            return
        refused = lacking(found.kind, found.name, permissions, answer.permissions)
        yield from refused or [found]

    def subscription(self, name: str, topic: str | None) -> Iterator[Finding]:
        """A subscription is there, belongs to the topic, and waits long enough.

        Parameters
        ----------
        topic
            of the job file; without one, a missing subscription can't be made
        """
        made = False
        try:
            found = self.subscriber.get_subscription(subscription=name, **ONCE)
        except api_exceptions.NotFound:
            if not topic:
                yield Finding("subscription", name, "missing", "name its topic to have it made")
                return
            if not self.create:
                advice = (
                    f"--create, or gcloud pubsub subscriptions create {name} --topic={topic} "
                    f"--ack-deadline={ACK_DEADLINE_S} --expiration-period=never"
                )
                yield Finding("subscription", name, "missing", advice)
                return
            try:
                found = self._make_subscription(name, topic)
            except api_exceptions.GoogleAPIError as error:
                yield not_made("subscription", name, error)
                return
            made = True
        status, remark = _judged(found, topic)
        if status == "ok" and made:
            status = "created"
        yield from self._permitted(
            Finding("subscription", name, status, remark), READING_MESSAGES, self.subscriber
        )
        letters = found.dead_letter_policy.dead_letter_topic
        if letters:
            yield from self._dead_letters(letters, name)

    def _make_subscription(self, name: str, topic: str) -> types.Subscription:
        wanted = types.Subscription(
            name=name,
            topic=topic,
            ack_deadline_seconds=ACK_DEADLINE_S,
            # Otherwise it is deleted after a month in which nothing reads it.
            expiration_policy=types.ExpirationPolicy(),
        )
        return self.subscriber.create_subscription(request=wanted, **ONCE)

    def _dead_letters(self, topic: str, subscription: str) -> Iterator[Finding]:
        use = f"dead letters of {subscription.rpartition('/')[2]}"
        if topic == DELETED_TOPIC:
            yield Finding("topic", topic, "missing", f"{use}: the topic was deleted")
            return
        try:
            self.publisher.get_topic(topic=topic, **ONCE)
        except api_exceptions.GoogleAPICallError as error:
            yield failed("topic", topic, error)
            return
        # Pub/Sub's own account publishes there, so that this one's permissions say nothing.
        yield Finding("topic", topic, "ok", use)

    def table_read(self, events: BigQueryEvents) -> Iterator[Finding]:
        """A table that events are read from is there, with its columns; a query is valid."""
        if events.query:
            query = bigquery.QueryJobConfig(
                dry_run=True, use_legacy_sql=not events.use_standard_sql
            )
            self.bigquery.query(events.query, job_config=query, **ONCE)
            yield Finding("query", events.query, "ok")
            return
        name = self._table_name(events.project, events.dataset, events.table)
        found = self.bigquery.get_table(name, **ONCE)
        known = {column.name for column in found.schema}
        unknown = sorted(set(events.columns or ()) - known)
        if unknown:
            remark = f"has no column {', '.join(unknown)}: it has {', '.join(sorted(known))}"
            yield Finding("table", name, "missing", remark)
        else:
            yield Finding("table", name, "ok", "events")

    def table_written(self, output: BigQueryEventOutput) -> Iterator[Finding]:
        """A table that events are written to is there, or can be made."""
        name = self._table_name(output.project, output.dataset, output.table)
        try:
            found = self.bigquery.get_table(name, **ONCE)
        except api_exceptions.NotFound:
            if output.create_disposition == "CREATE_NEVER":
                raise
            dataset = name.rpartition(".")[0]
            self.bigquery.get_dataset(dataset, **ONCE)
            yield Finding("table", name, "ok", "events written: made by the job")
            return
        if output.write_disposition == "WRITE_EMPTY" and found.num_rows:
            remark = (
                f"holds {found.num_rows} rows, and WRITE_EMPTY refuses that: set write_disposition "
                "to WRITE_APPEND"
            )
            yield Finding("table", name, "warning", remark)
        else:
            yield Finding("table", name, "ok", "events written")

    def _table_name(self, project: str | None, dataset: str | None, table: str | None) -> str:
        parts = (project or self.job.pipeline_options.project, dataset, table)
        return ".".join(part for part in parts if part)


def _judged(found: types.Subscription, topic: str | None) -> tuple[Status, str]:
    if found.topic == DELETED_TOPIC:
        return "missing", "its topic was deleted: no message comes any more"
    if topic and found.topic != topic:
        return "warning", f"belongs to {found.topic}, the job file says {topic}"
    deadline_s = found.ack_deadline_seconds
    remark = f"of {found.topic}, ack deadline {deadline_s} s"
    if deadline_s < SHORT_ACK_DEADLINE_S:
        advice = f"gcloud pubsub subscriptions update {found.name} --ack-deadline={ACK_DEADLINE_S}"
        return "warning", f"{remark}: messages may come twice: {advice}"
    return "ok", remark
