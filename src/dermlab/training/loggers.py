"""TensorBoard, MLflow or W&B by Lightning's loggers, where installed; nothing leaves the machine unasked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dermlab.core.errors import MissingExtraError

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger

LoggerName = Literal["tensorboard", "mlflow", "wandb"]


def make_logger(kind: LoggerName, folder: Path, *, name: str, online: bool = False) -> Logger:
    """Return one of Lightning's loggers.

    Args:
        kind: which.
        folder: where it keeps its files.
        name: of the run.
        online: let MLflow and W&B speak to the server that their own environment variables name
            (``MLFLOW_TRACKING_URI``, ``WANDB_*``); otherwise they write files into ``folder`` only.

    Raises:
        MissingExtraError: its package is not installed.
    """
    if kind == "tensorboard":
        try:
            import tensorboard  # noqa: F401
            from lightning_fabric.loggers.tensorboard import TensorBoardLogger
        except ImportError:
            raise MissingExtraError("logger: tensorboard", "tensorboard", "tensorboard") from None
        return TensorBoardLogger(folder, name="", version="")
    try:
        if kind == "mlflow":
            import mlflow  # noqa: F401
        else:
            import wandb  # noqa: F401
        from pytorch_lightning.loggers import MLFlowLogger, WandbLogger
    except ImportError:
        raise MissingExtraError(f"logger: {kind}", f"{kind} (with pytorch-lightning)", kind) from None
    logger: Any
    if kind == "mlflow":
        address = os.environ.get("MLFLOW_TRACKING_URI") if online else None
        if address is None:
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # newer versions want to be told that files will do
        logger = MLFlowLogger("dermlab", run_name=name, tracking_uri=address or folder.absolute().as_uri())
    else:
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        folder.mkdir(parents=True, exist_ok=True)
        logger = WandbLogger(name=name, save_dir=folder, project="dermlab", offline=not online)
    return logger
