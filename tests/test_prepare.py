"""`prepare` with the real thing: stock TFDS sets built with no network, read back image by image.

The upstream archives are looked for beside the repository, in ../shared/data, or in the folder that
the environment variable JAXCNN_TEST_DATA names.
"""

import gzip
import importlib.util
import io
import os
import struct
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from photographs import jpeg, photo

from jaxcnn.config import Data, InputError
from jaxcnn.data import photos, streamed
from jaxcnn.data.pictures import decode, square
from jaxcnn.data.prepare import prepare
from jaxcnn.data.sources import Split, load

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("JAXCNN_TEST_DATA", ROOT.parent / "shared" / "data"))
SETS = ("mnist", "fashion_mnist")
KINDS = ("images-idx3", "labels-idx1")

TENSORFLOW = importlib.util.find_spec("tensorflow") is not None

needs_tensorflow = pytest.mark.skipif(not TENSORFLOW, reason="needs the extra prep: TensorFlow")
needs_archives = pytest.mark.skipif(
    not all((SHARED / name).is_dir() for name in SETS),
    reason=f"needs the archives of {' and '.join(SETS)} in {SHARED}",
)


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own: TensorFlow is heavy, and warns where our tests allow no warning."""
    nowhere = "http://127.0.0.1:9"  # no network, on any machine
    proxies = {f"{kind}_proxy": nowhere for kind in ("http", "https", "all")}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **proxies, "no_proxy": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )


PREPARE = """
import sys
from pathlib import Path
from jaxcnn.config import InputError
from jaxcnn.data.prepare import prepare

data_dir, *todo = sys.argv[1:]
for name, archives in zip(todo[::2], todo[1::2]):
    try:
        prepare(name, Path(data_dir), Path(archives) if archives else None)
    except InputError as error:
        print(f"InputError: {error}")
"""


def test_what_needs_no_tensorflow_is_said_without_it(tmp_path):
    with pytest.raises(InputError, match="Did you mean cifar10"):
        prepare("cifar11", tmp_path)
    with pytest.raises(InputError, match="--archives: .* is no folder"):
        prepare("cifar10", tmp_path, tmp_path / "absent")
    assert "tensorflow" not in sys.modules
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(TENSORFLOW, reason="TensorFlow is here")
def test_without_tensorflow_the_extra_is_named(tmp_path):
    with pytest.raises(InputError, match=r"pip install .*\[prep\]"):
        prepare("cifar10", tmp_path)
    assert list(tmp_path.iterdir()) == []


@needs_tensorflow
def test_without_network_each_refusal_is_one_line(tmp_path):
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "train-images-idx3-ubyte.gz").write_bytes(b"MNIST it is not")
    (wrong / "t10k-images-idx3-ubyte.gz").write_bytes(b"MNIST it is not")
    result = python(PREPARE, tmp_path, "cifar10", "", "imagenet2012", "", "mnist", wrong)
    assert result.returncode == 0, result.stderr[-2000:]
    lines = [x for x in result.stdout.splitlines() if x.startswith("InputError: ")]
    no_network, by_hand, not_upstreams = lines
    assert "cifar10: cannot reach www.cs.toronto.edu. Fetch cifar-10-binary.tar.gz" in no_network
    assert "--archives DIR" in no_network
    assert f"{tmp_path}/cifar10" not in result.stdout  # not even begun: TFDS tries for minutes
    assert "imagenet2012: " in by_hand
    assert "ILSVRC2012_img_train.tar" in by_hand
    assert "mnist: " in not_upstreams
    assert "wrong checksum" in not_upstreams
    assert not list(tmp_path.glob("**/dataset_info.json"))


@needs_tensorflow
def test_imagenet_from_its_archives(tmp_path):
    """An archive of an archive a class, and one of validation pictures, as image-net.org has them;
    three classes, whose pictures are then streamed.
    """
    synsets = ("n01440764", "n02123045", "n04487394")

    def archive(files: dict[str, bytes]) -> bytes:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w") as tar:
            for name, content in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return raw.getvalue()

    inner = {
        f"{synset}.tar": archive({f"{synset}_{k}.JPEG": jpeg(photo(10 * i + k)) for k in range(2)})
        for i, synset in enumerate(synsets)
    }
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(archive(inner))
    outer = {f"ILSVRC2012_val_{k:08d}.JPEG": jpeg(photo(50 + k)) for k in (1, 2, 3)}
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(archive(outer))
    result = python(PREPARE, tmp_path / "data", "imagenet2012", tmp_path)
    assert "imagenet2012 is prepared in" in result.stdout, result.stderr[-2000:]
    found = streamed.load(
        Data(name="imagenet2012", stream=True, side=20, validation_examples=0), tmp_path / "data"
    )
    assert found.sizes == {"train": 6, "validation": 0, "test": 3} and len(found.classes) == 1000
    for index in range(6):
        synset, k = found.train.name(index).removesuffix(".JPEG").split("_")
        image, label = photos.read(found.train, index)
        want = square(decode(jpeg(photo(10 * synsets.index(synset) + int(k))), 20))
        np.testing.assert_array_equal(image, want)
        assert found.classes[label] == synset


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    """Both sets in one place, although their archives have the same names."""
    root = tmp_path_factory.mktemp("prepared")
    todo = []
    for name in SETS:
        archives = root / "archives" / name
        archives.mkdir(parents=True)
        for file in (SHARED / name).glob("*.gz"):
            content = file.read_bytes()
            if name == "fashion_mnist":
                content = upstream(file.name, content)
            (archives / file.name).write_bytes(content)
        todo += [name, archives]
    result = python(PREPARE, root, *todo)
    assert result.returncode == 0, result.stderr[-2000:]
    for name in SETS:
        where = f"{name} is prepared in {root}/{name}/3.0.1"
        assert f"{where}: train 60,000, test 10,000." in result.stdout.splitlines()
    return root


def upstream(name: str, debian: bytes) -> bytes:
    """Debian's copies of Fashion-MNIST differ from upstream's in the gzip header alone."""
    time = 1504176627 if name.startswith("t10k") else 1504176606
    stem = name.removesuffix(".gz").encode()
    return b"\x1f\x8b\x08\x08" + struct.pack("<I", time) + b"\x00\x03" + stem + b"\0" + debian[10:]


def archive(name: str, split: str) -> Split:
    raw = [
        np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8)
        for path in (SHARED / name / f"{split}-{kind}-ubyte.gz" for kind in KINDS)
    ]
    return Split(raw[0][16:].reshape(-1, 28, 28, 1), raw[1][8:])


def contents(*splits: Split) -> Counter[bytes]:
    """How often each labelled image occurs: the order is not kept."""
    return Counter(
        image.tobytes() + bytes([label])
        for split in splits
        for image, label in zip(split.images, split.labels, strict=True)
    )


@needs_tensorflow
@needs_archives
@pytest.mark.parametrize("name", SETS)
def test_what_is_read_is_what_was_in_the_archives(name, data_dir):
    dataset = load(Data(name=f"tfds:{name}"), data_dir)
    assert dataset.train.images.shape == (55_000, 28, 28, 1)
    assert contents(dataset.train, dataset.validation) == contents(archive(name, "train"))
    assert contents(dataset.test) == contents(archive(name, "t10k"))
    assert dataset.classes[0] == {"mnist": "0", "fashion_mnist": "T-shirt/top"}[name]


@needs_tensorflow
@needs_archives
def test_reading_imports_no_tensorflow(data_dir):
    code = """
import sys
from pathlib import Path
from jaxcnn.config import Data
from jaxcnn.data.sources import load

print(len(load(Data(name="fashion_mnist"), Path(sys.argv[1])).test.labels))
print([name for name in ("tensorflow", "jax") if name in sys.modules])
"""
    for cache in data_dir.glob("fashion_mnist/*/jaxcnn_*.npz"):
        cache.unlink()
    result = python(code, data_dir)
    assert result.stdout.splitlines() == ["10000", "[]"], result.stderr[-2000:]


@needs_tensorflow
@needs_archives
def test_what_is_prepared_is_not_prepared_again(data_dir):
    said = []
    prepare("tfds:mnist", data_dir, console_print=said.append)
    assert said == [f"mnist is prepared already, in {data_dir}/mnist/3.0.1."]
    assert "tensorflow" not in sys.modules
