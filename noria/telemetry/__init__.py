"""telemetry: recording what happens.

Numbers enter a `MetricsCollector` (counters, gauges, histograms, time series) and leave as Prometheus' text or as
points of a time range. Events enter an `MLLogger` and leave as rotating JSON lines. Requests enter a `RequestTracer`
and leave as OpenTelemetry's spans. None makes its caller wait.
"""

from noria.telemetry.logs import MLLogger
from noria.telemetry.metrics import OPENMETRICS, TEXT, MetricPoint, MetricsCollector
from noria.telemetry.tracing import RequestTracer

__all__ = ["OPENMETRICS", "TEXT", "MLLogger", "MetricPoint", "MetricsCollector", "RequestTracer"]
