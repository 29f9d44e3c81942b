"""A bare load balancer over two servers: `haproxy|nginx BINARY PORT FIRST SECOND FOLDER`; the process becomes it."""

import os
import sys
from pathlib import Path

kind, binary, port, first, second = sys.argv[1:6]
folder = Path(sys.argv[6]) / port
folder.mkdir(parents=True)
HAPROXY = f"""
global
  maxconn 4096
  nbthread 2
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend clients
  bind 127.0.0.1:{port}
  default_backend servers
backend servers
  server first 127.0.0.1:{first}
  server second 127.0.0.1:{second}
"""
NGINX = f"""
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  upstream servers {{
    server 127.0.0.1:{first};
    server 127.0.0.1:{second};
    keepalive 64;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://servers;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
"""
config = folder / f"{kind}.conf"
config.write_text(HAPROXY if kind == "haproxy" else NGINX)
os.execv(
    binary, [binary, "-db", "-f", str(config)] if kind == "haproxy" else [binary, "-c", str(config), "-p", str(folder)]
)
