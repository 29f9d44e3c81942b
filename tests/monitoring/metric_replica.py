"""A replica for tests of the console: health, metrics that tell the key, an OpenAPI document. `metric_replica.py PORT`."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DOCUMENT = {
    "openapi": "3.1.0",
    "paths": {"/predict": {"post": {"summary": "Predict <b>late</b>.", "requestBody": {"content": {"application/json": {
        "schema": {"$ref": "#/components/schemas/Ask"}, "example": {"x": "</pre><script>"}}}}}}},
    "components": {"schemas": {"Ask": {"type": "object", "required": ["x"], "properties": {"x": {"type": "number"}}}}},
}  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        key = self.headers.get("authorization", "")
        text = f'# HELP told The key.\n# TYPE told gauge\ntold{{key="{key}"}} 1\n# TYPE plain counter\nplain_total 7\n'
        body = json.dumps(DOCUMENT) if self.path == "/openapi.json" else text
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
