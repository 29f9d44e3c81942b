"""gateway: many servers as one.

A model server is one process on one core, and any process may die. The gateway runs several of them (*replicas*) and
stands before them. Requests come in on one address, where HAProxy accepts them, takes slow clients, TLS and limits
upon itself, and passes each to a replica that is ready; answers go back the same way. `Supervisor` starts the replicas
and HAProxy, takes a replica that dies out of the rotation, starts it again and puts it back, so that clients see no
error. `LoadBalancer` makes the same choice, a healthy server for the next request, inside a Python client and with
no proxy at all.
"""

from noria.gateway.autoscale import Load, ScaleLimits, wanted
from noria.gateway.control import ask
from noria.gateway.errors import GatewayError, NoHealthyServerError
from noria.gateway.events import log_event
from noria.gateway.load_balancer import LoadBalancer
from noria.gateway.operations import ServerStatus
from noria.gateway.outliers import OutlierLimits, outliers
from noria.gateway.policies import POLICIES, Candidate, ConsistentHash, LeastConnections, Policy, RoundRobin
from noria.gateway.proxy_config import ProxyConfig, Upstream, render
from noria.gateway.proxy_options import ProxyOptions
from noria.gateway.replica import ReplicaStatus
from noria.gateway.restarts import RestartPolicy
from noria.gateway.server import Server
from noria.gateway.statistics import ServerStatistics
from noria.gateway.supervisor import Supervisor

__all__ = [
    "POLICIES",
    "Candidate",
    "ConsistentHash",
    "GatewayError",
    "LeastConnections",
    "Load",
    "LoadBalancer",
    "NoHealthyServerError",
    "OutlierLimits",
    "Policy",
    "ProxyConfig",
    "ProxyOptions",
    "ReplicaStatus",
    "RestartPolicy",
    "RoundRobin",
    "ScaleLimits",
    "Server",
    "ServerStatistics",
    "ServerStatus",
    "Supervisor",
    "Upstream",
    "ask",
    "log_event",
    "outliers",
    "render",
    "wanted",
]
