"""TensorBoard event files of an experiment's runs, from the records. Needs extra `tensorboard`."""

import importlib.util
from pathlib import Path

from jaxcnn import records
from jaxcnn.config import InputError
from jaxcnn.experiment import Experiment


def check() -> None:
    """Raise `InputError` where tensorboardX is not installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError(
            "--tensorboard: tensorboardX is not installed. Run:"
            " pip install -c constraints.txt -e '.[tensorboard]'"
        )


def write(experiment: Experiment, root: Path) -> list[Path]:
    """Event files, made anew, in root/experiment/tensorboard/arm/run; returns those folders."""
    from tensorboardX import SummaryWriter

    written = []
    for info in sorted((root / experiment.name).glob("*/*/run.json")):
        record = records.read(info.parent)
        assert record is not None
        arm, run = info.parent.parent.name, info.parent.name
        folder = root / experiment.name / "tensorboard" / arm / run
        for old in folder.glob("events.*"):
            old.unlink()
        with SummaryWriter(str(folder)) as writer:
            for row in record.rows:
                for split in ("batch", "train", "validation"):
                    for metric in ("loss", "error", "error5"):
                        value = row.get(split, {}).get(metric)
                        if value is not None:
                            writer.add_scalar(f"{split}/{metric}", value, row["step"])
        written.append(folder)
    return written
