"""mlflow_model: versions as MLflow's model directories, and such directories as versions.

`export_version` writes a directory that MLflow loads and serves: the flavor `python_function` applies the fitted steps
and predicts, a native flavor stands beside it where the model reads its columns as they are. Look-ups stay behind: the
exported model takes its inputs as columns. `import_model` makes a version of a directory. MLflow itself is needed for
neither.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.training.mlflow_model.export import export_version
    from noria.training.mlflow_model.importing import import_model

_ORIGIN = {"export_version": "export", "import_model": "importing"}

__all__ = ["export_version", "import_model"]

__getattr__ = exports(__name__, _ORIGIN)
