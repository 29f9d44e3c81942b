"""distributed: one model out of many parts of the rows, on Ray.

The rows are cut into partitions (`partitions`), each is put into Ray's object store once, and workers (`crew`) train on
them; a strategy says what becomes of it: `Average` (rounds of training from the same parameters and averaging them),
`AllReduce` (one network, gradients summed over workers), `Histograms` (the boosting libraries' own distributed modes),
`Vote` and `Stack` (a model per partition, together). Work belongs to partitions and its seeds to partition and round,
so that nothing depends on who did what: a worker that dies is replaced, one that comes later joins, and the result is
the same. `FederatedTraining` is `Average` over clients whose rows never leave them.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.training.distributed.all_reduce import AllReduce
    from noria.training.distributed.average import Average
    from noria.training.distributed.ensembles import Stack, Vote
    from noria.training.distributed.federated import FederatedTraining
    from noria.training.distributed.histograms import Histograms
    from noria.training.distributed.training import DistributedTraining

_ORIGIN = {
    "AllReduce": "all_reduce",
    "Average": "average",
    "DistributedTraining": "training",
    "FederatedTraining": "federated",
    "Histograms": "histograms",
    "Stack": "ensembles",
    "Vote": "ensembles",
}

__all__ = [
    "AllReduce",
    "Average",
    "DistributedTraining",
    "FederatedTraining",
    "Histograms",
    "Stack",
    "Vote",
]

__getattr__ = exports(__name__, _ORIGIN)
