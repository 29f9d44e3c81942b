"""noria's supervisor with two replicas behind HAProxy: `PORT FOLDER WORD …`; the words' `{port}` is a replica's."""

import sys
from pathlib import Path

from noria.gateway import Supervisor

port, folder, *words = sys.argv[1:]


def command(index: int, own: int) -> list[str]:
    return [word.replace("{replica}", str(index)).replace("{own}", str(own)) for word in words]


Supervisor(command, replicas=2, host="127.0.0.1", port=int(port), run_dir=Path(folder)).start().wait()
