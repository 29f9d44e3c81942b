"""gateway: many servers as one.

A model server is one process on one core, and any process may die. The gateway runs several of them (*replicas*) and
stands before them. Requests come in on one address, where HAProxy accepts them, takes slow clients, TLS and limits
upon itself, and passes each to a replica that is ready; answers go back the same way. `Supervisor` starts the replicas
and HAProxy, takes a replica that dies out of the rotation, starts it again and puts it back, so that clients see no
error. `LoadBalancer` makes the same choice, a healthy server for the next request, inside a Python client and with
no proxy at all.
"""

from noria.gateway.errors import GatewayError, NoHealthyServerError
from noria.gateway.fleet import RestartPolicy
from noria.gateway.load_balancer import POLICIES, LoadBalancer, Policy, RoundRobin, Server
from noria.gateway.proxy_config import ProxyConfig, ProxyOptions, Upstream, render
from noria.gateway.replica import ReplicaStatus
from noria.gateway.supervisor import Supervisor, log_event

__all__ = [
    "POLICIES",
    "GatewayError",
    "LoadBalancer",
    "NoHealthyServerError",
    "Policy",
    "ProxyConfig",
    "ProxyOptions",
    "ReplicaStatus",
    "RestartPolicy",
    "RoundRobin",
    "Server",
    "Supervisor",
    "Upstream",
    "log_event",
    "render",
]
