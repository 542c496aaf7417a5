"""`launch.py prepare NAME`: a TFDS set, fetched once and stored to be read without TensorFlow."""

import importlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jaxcnn.config import InputError
from jaxcnn.data import readers

PROBE_SECONDS = 5.0


def prepare(
    name: str,
    data_dir: Path | None = None,
    archives: Path | None = None,
    console_print: Callable[[str], None] = print,
) -> None:
    """Store the TFDS set `name` under `data_dir`, as array_record.

    `archives` is a folder of upstream files under their upstream names: what lies there is not
    fetched. Without it, `downloads/manual/` under `data_dir` is that folder, as everywhere in TFDS.
    """
    name = name.removeprefix("tfds:")
    data_dir = data_dir or readers.default_data_dir()
    builder = readers.builder(name, data_dir)
    if readers.is_prepared(builder):
        console_print(f"{name} is prepared already, in {builder.data_dir}.")
        return
    if archives is not None and not archives.is_dir():
        raise InputError(f"--archives: {str(archives)!r} is no folder.")
    _build(name, builder, data_dir / "downloads", archives)
    counts = [f"{split} {info.num_examples:,}" for split, info in builder.info.splits.items()]
    console_print(f"{name} is prepared in {builder.data_dir}: {', '.join(counts)}.")


def _build(name: str, builder: Any, downloads: Path, archives: Path | None) -> None:
    tf = _tensorflow()
    import requests
    from tensorflow_datasets import download
    from tensorflow_datasets.core.download import downloader
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    archives = archives or downloads / "manual"
    missing = _missing(builder, downloads, archives)
    unreachable = InputError(
        f"{name}: cannot reach {_hosts(missing.values())}. Fetch {', '.join(missing)} from there on"
        " another machine and name the folder: --archives DIR."
    )
    if missing and not _reachable(next(iter(missing.values()))):
        if len(missing) == len(builder.url_infos) and not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
            raise unreachable
        # What is here may be all that this config needs. TFDS finds out; not in ten attempts.
        downloader.MAX_RETRIES = 0
    options = download.DownloadConfig(
        manual_dir=archives,
        # TFDS names what it extracts by the archive alone: Fashion-MNIST would get MNIST's images.
        extract_dir=downloads / "extracted" / builder.name,
    )
    try:
        builder.download_and_prepare(
            download_dir=downloads, download_config=options, file_format="array_record"
        )
    except requests.ConnectionError as error:
        raise unreachable from error
    except (
        AssertionError,  # files that the user has to fetch by hand, with TFDS's instructions
        ImportError,  # a builder with needs of its own
        OSError,  # no room on the disk, among others
        NonMatchingChecksumError,
        download.DownloadError,
        tf.errors.OpError,
    ) as error:
        raise InputError(f"{name}: {' '.join(str(error).split())}") from error


def _tensorflow() -> Any:
    """TensorFlow, which TFDS builds with, kept off the accelerators that JAX is using."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        tf = importlib.import_module("tensorflow")
    except ImportError as error:
        raise InputError(
            "preparing a TFDS set needs TensorFlow (reading it does not):"
            " pip install -c constraints.txt -e '.[prep]'"
        ) from error
    tf.config.set_visible_devices([], "GPU")
    return tf


def _missing(builder: Any, downloads: Path, archives: Path) -> dict[str, str]:
    """Upstream file name -> URL, of those neither in `archives` nor fetched before."""
    from tensorflow_datasets.core.download.resource import get_dl_fname

    missing = {}
    for url, info in (builder.url_infos or {}).items():
        name = info.filename or Path(urlsplit(url).path).name
        fetched = get_dl_fname(url, info.checksum)
        places = (archives / name, downloads / fetched, downloads / builder.name / fetched)
        if not any(place.exists() for place in places):
            missing[name] = url
    return missing


def _hosts(urls: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(urlsplit(url).netloc for url in urls))


def _reachable(url: str) -> bool:
    """Whether anything answers: TFDS itself would try for minutes and end in a traceback."""
    import requests

    try:
        requests.head(url, timeout=PROBE_SECONDS)
    except requests.RequestException:
        return False
    return True
