"""Sends metrics with the OpenTelemetry SDK and its own exporters, as a program of a user would.

usage: send.py grpc|http URL TOKEN cumulative|delta RESOURCE... ; prints how each export went, one line each.
"""

import logging
import sys

from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, UpDownCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

transport, url, token, temporality, *pairs = sys.argv[1:]
logging.basicConfig(stream=sys.stderr, level=logging.INFO)
if transport == "grpc":
    from grpc import Compression
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    exporter = OTLPMetricExporter(
        endpoint=url, insecure=True, headers=(("authorization", f"Bearer {token}"),), compression=Compression.Gzip, timeout=20
    )
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    exporter = OTLPMetricExporter(
        endpoint=f"{url}/v1/metrics", headers={"authorization": f"Bearer {token}"}, compression=Compression.Gzip, timeout=20
    )

delta = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}
reader = InMemoryMetricReader(preferred_temporality=delta if temporality == "delta" else {})
resource = Resource(dict(pair.split("=", 1) for pair in pairs))
provider = MeterProvider(
    metric_readers=[reader],
    resource=resource,
    views=[View(instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation())],
)
meter = provider.get_meter("of.the.test")
requests = meter.create_counter("requests", unit="{request}")
temperature = meter.create_gauge("temperature", unit="Cel")
active: UpDownCounter = meter.create_up_down_counter("active")
latency = meter.create_histogram("latency", unit="s", explicit_bucket_boundaries_advisory=[0.1, 1.0])
exponential = meter.create_histogram("exponential", unit="s")
for round in range(2):
    requests.add(3, {"route": "/a"})
    temperature.set(20.5 + round)
    active.add(2)
    for value in [0.05, 0.5, 5.0]:
        latency.record(value)
    for value in [0.75, 3.0, 3.5]:
        exponential.record(value)
    if "bad" in pairs[0]:
        temperature.set(1.0, {"source": "somebody else"})
    print(exporter.export(reader.get_metrics_data()).name)
exporter.shutdown()
provider.shutdown()
