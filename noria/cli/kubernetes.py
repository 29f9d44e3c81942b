"""The text of `noria export kubernetes`."""

from __future__ import annotations

from noria.cli.deployment import STOP_SECONDS, UID, Deployment


def kubernetes(to: Deployment) -> dict[str, str]:
    """A volume, a deployment of one pod, and a service."""
    return {f"{to.name}.yaml": "---\n".join((_claim(to), _deployment(to), _service(to)))}


def _claim(to: Deployment) -> str:
    return f"""\
# Needs the image {to.name}:latest (noria export docker) where the cluster can pull it, and for the first start keys:
#   kubectl create secret generic {to.name}-keys --from-literal=digests=SHA256-OF-A-KEY,…
# Those of `kubectl exec deploy/{to.name} -- noria keys create NAME` are kept in the volume; the secret can go then.
# Bring the project up to date: kubectl exec deploy/{to.name} -- noria run
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {to.name}-state
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests:
      storage: 10Gi
"""


def _deployment(to: Deployment) -> str:
    command = ", ".join(("noria", *to.words))
    grpc = f"\n            - {{name: grpc, containerPort: {to.grpc_inside}}}" if to.grpc_port else ""
    return f"""\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {to.name}
  labels: {{app: {to.name}}}
spec:
  # One pod has all server processes and the embedded stores, of which one pod at a time may write: so it is recreated,
  # and a new image means a pause. New models need none; new code in the same pod: kubectl exec … noria restart
  replicas: 1
  strategy: {{type: Recreate}}
  selector:
    matchLabels: {{app: {to.name}}}
  template:
    metadata:
      labels: {{app: {to.name}}}
    spec:
      terminationGracePeriodSeconds: {STOP_SECONDS + 5}
      automountServiceAccountToken: false
      enableServiceLinks: false  # its variables could be taken for settings
      securityContext:
        runAsNonRoot: true
        runAsUser: {UID}
        runAsGroup: {UID}
        fsGroup: {UID}
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: serve
          image: {to.name}:latest
          command: [{command}]
          ports:
            - {{name: http, containerPort: {to.inside}}}{grpc}
          env:
            - name: NORIA_SERVE_API_KEYS
              valueFrom:
                secretKeyRef: {{name: {to.name}-keys, key: digests, optional: true}}
          startupProbe:
            httpGet: {{path: /health/ready, port: http}}
            timeoutSeconds: 12
            periodSeconds: 5
            failureThreshold: 60
          readinessProbe:
            httpGet: {{path: /health/ready, port: http}}
            timeoutSeconds: 3
            periodSeconds: 3
          livenessProbe:  # patient: noria starts its servers again by itself
            httpGet: {{path: /health/live, port: http}}
            timeoutSeconds: 15
            periodSeconds: 20
            failureThreshold: 3
          lifecycle:
            preStop:  # until no new connections are sent here
              exec: {{command: [sleep, "5"]}}
          resources:
            requests: {{cpu: "{to.processes}", memory: {512 * (to.processes + 1)}Mi}}
            limits: {{memory: {1024 * (to.processes + 1)}Mi}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
            - {{name: state, mountPath: /app/.noria}}
            - {{name: tmp, mountPath: /tmp}}
      volumes:
        - name: state
          persistentVolumeClaim: {{claimName: {to.name}-state}}
        - name: tmp
          emptyDir: {{}}
"""


def _service(to: Deployment) -> str:
    grpc = f"\n    - {{name: grpc, port: {to.grpc_port}, targetPort: grpc}}" if to.grpc_port else ""
    return f"""\
apiVersion: v1
kind: Service
metadata:
  name: {to.name}
spec:
  selector: {{app: {to.name}}}
  ports:
    - {{name: http, port: 80, targetPort: http}}{grpc}
"""
