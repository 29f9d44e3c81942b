"""A machine that joins a real cluster while there is work, and one that is lost."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


@pytest.fixture
def cluster() -> Iterator[Any]:
    import ray
    from ray.cluster_utils import Cluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        ray.init(address=made.address, log_to_driver=False, logging_level=logging.ERROR)
        yield made
        ray.shutdown()
        made.shutdown()


def test_workers_join_and_are_lost_while_there_is_work(cluster: Any) -> None:
    from noria.training.distributed.crew import Crew

    def where(number: int) -> tuple[int, str]:
        import ray

        time.sleep(0.2)
        return number, ray.get_runtime_context().get_node_id()

    nodes: list[str] = []
    joined: Any = None
    with Crew("ray") as crew:
        assert crew.size() == 1
        # There is work until the second machine has done some, and some after it is gone.
        for place, (number, node) in crew.each(where, [(number,) for number in range(400)]):
            assert place == number
            if not nodes:
                joined = cluster.add_node(num_cpus=1)
            nodes.append(node)
            if joined is not None and len(set(nodes)) == 2 and len(nodes) < 390:
                cluster.remove_node(joined, allow_graceful=False)
                joined = None
                break
        assert len(set(nodes)) == 2
        assert crew.size() >= 1
        assert sorted(number for _, (number, _) in crew.each(where, [(n,) for n in range(6)])) == list(range(6))
