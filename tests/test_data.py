"""Splits, checksums, downloads and fallbacks of the data sets."""

import contextlib
import gc
import gzip
import hashlib
import http.server
import io
import os
import shutil
import socket
import tarfile
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from advlib import data
from advlib._vision import torchvision

RAW = "MNIST/raw"


def mnist_folder() -> Path | None:
    """The folder with MNIST's four files, without reading them."""
    folders = [root / RAW for root in data.roots()]
    found = (f for f in folders if all((f / n).is_file() for n in data.MNIST_SHA256))
    return next(found, None)


HERE = mnist_folder()
needs_mnist = pytest.mark.skipif(HERE is None, reason="MNIST's files are not on disk")


@pytest.fixture
def places(tmp_path, monkeypatch):
    """ADVLIB_DATA and the cache inside ``tmp_path``, both yet to be made."""
    monkeypatch.setenv("ADVLIB_DATA", str(tmp_path / "given"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("ADVLIB_DATASET", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path


def images_of(split) -> set[bytes]:
    """The images as bytes, to compare sets of them."""
    return {image.numpy().tobytes() for image in split[0]}


# ------------------------------------------------------------------------- digits


def test_digits_are_scikit_learns_images_in_pixels():
    """Every image of the source once, divided by 16, with its own label."""
    digits, raw = data.load("digits"), load_digits()
    splits = (digits.train, digits.validation, digits.test)
    assert [len(y) for _, y in splits] == [1197, 200, 400]
    for x, y in splits:
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        assert x.shape == (len(y), 1, 8, 8)
    x, y = (torch.cat([split[i] for split in splits]) for i in range(2))
    found = sorted(
        (*(16 * image).flatten().tolist(), label)
        for image, label in zip(x, y.tolist(), strict=True)
    )
    source = sorted(
        (*image.flatten().tolist(), int(label))
        for image, label in zip(raw.images, raw.target, strict=True)
    )
    assert found == source
    assert (digits.shape, digits.num_classes) == ((1, 8, 8), 10)


def test_digits_splits_are_disjoint():
    """No image of one split occurs in another."""
    digits = data.load("digits")
    train, validation, test = map(
        images_of, (digits.train, digits.validation, digits.test)
    )
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_digits_are_the_same_on_every_load():
    """The order is fixed and takes nothing from the global random state."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = data.load("digits")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = data.load("digits")
    for a, b in zip(first.train + first.test, again.train + again.test, strict=True):
        assert torch.equal(a, b)


def test_digits_are_mixed():
    """Each split holds every class in about its share: the order is a shuffle."""
    digits = data.load("digits")
    for _, y in (digits.train, digits.validation, digits.test):
        share = torch.bincount(y, minlength=10) / len(y)
        assert share.min() > 0.05
        assert share.max() < 0.16


def test_unknown_name():
    """The error lists the names that exist."""
    with pytest.raises(ValueError, match=r"cifar10_jpeg.*digits.*mnist"):
        data.load("imagenet")


# -------------------------------------------------------------------------- MNIST


@needs_mnist
def test_mnist_is_the_files_content():
    """Images and labels, read here byte by byte, in the splits 55000, 5000, 10000."""
    mnist = data.load("mnist")
    sizes = [len(y) for _, y in (mnist.train, mnist.validation, mnist.test)]
    assert sizes == [55000, 5000, 10000]
    for part, splits in (
        ("train", (mnist.train, mnist.validation)),
        ("t10k", (mnist.test,)),
    ):
        pixels = (HERE / f"{part}-images-idx3-ubyte").read_bytes()[16:]
        labels = (HERE / f"{part}-labels-idx1-ubyte").read_bytes()[8:]
        x, y = (torch.cat([split[i] for split in splits]) for i in range(2))
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert (255 * x).round().byte().numpy().tobytes() == pixels
        assert y.byte().numpy().tobytes() == labels
        assert x.min() == 0
        assert x.max() == 1
    assert (mnist.shape, mnist.num_classes) == ((1, 28, 28), 10)
    assert not images_of(mnist.train) & images_of(mnist.validation)
    assert str(mnist) == (
        "mnist: 55000 training, 5000 validation, 10000 test images of 1 x 28 x 28"
    )


@needs_mnist
@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
@pytest.mark.parametrize("name", ["t10k-labels-idx1-ubyte", "train-labels-idx1-ubyte"])
def test_damaged_mnist_is_refused(places, damage, name):
    """The file is named; ``default`` raises too, and never answers with digits."""
    folder = places / "given" / RAW
    folder.mkdir(parents=True)
    for other in data.MNIST_SHA256:
        (folder / other).symlink_to(HERE / other)
    content = bytearray((HERE / name).read_bytes())
    if damage == "altered":
        content[-1] ^= 1
    (folder / name).unlink()
    (folder / name).write_bytes(content[: {"truncated": -1, "empty": 0}.get(damage)])
    for function in (lambda: data.load("mnist"), data.default):
        with pytest.raises(ValueError, match=rf"{name} is not the published file"):
            function()


def test_one_damaged_file_among_missing_ones_is_refused(places):
    """A leftover of a broken copy is refused before any download is tried."""
    path = places / "cache" / "advlib" / RAW / "train-images-idx3-ubyte"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="train-images-idx3-ubyte") as caught:
        data.load("mnist")
    assert str(path) in str(caught.value)


# ---------------------------------------------------------- a small MNIST, served


def idx(array: np.ndarray) -> bytes:
    """``array`` of bytes in the IDX format of MNIST's files."""
    header = bytes([0, 0, 8, array.ndim])
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + sizes + array.astype(np.uint8).tobytes()


def small_mnist(seed: int = 0) -> dict[str, bytes]:
    """The four files with 30 and 20 random images."""
    rng = np.random.default_rng(seed)
    files = {}
    for part, n in (("train", 30), ("t10k", 20)):
        images = rng.integers(256, size=(n, 28, 28))
        files[f"{part}-images-idx3-ubyte"] = idx(images)
        files[f"{part}-labels-idx1-ubyte"] = idx(rng.integers(10, size=n))
    return files


def publish(monkeypatch, files: dict[str, bytes]) -> None:
    """Make ``files`` the published ones, by their sha256."""
    digests = {name: hashlib.sha256(c).hexdigest() for name, c in files.items()}
    monkeypatch.setattr(data, "MNIST_SHA256", digests)


def offer(monkeypatch, files: dict[str, bytes], address: str) -> dict[str, bytes]:
    """Make torchvision look for the .gz of ``files`` at ``address``, with their md5."""
    packed = {f"{name}.gz": gzip.compress(c) for name, c in files.items()}
    kind = torchvision().datasets.MNIST
    monkeypatch.setattr(kind, "mirrors", [address])
    listed = [(n, hashlib.md5(content).hexdigest()) for n, content in packed.items()]
    monkeypatch.setattr(kind, "resources", listed)
    return packed


@contextlib.contextmanager
def serving(files: dict[str, bytes]):
    """Serve ``files`` on 127.0.0.1; yields the address and the list of requests."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = files.get(self.path.strip("/"))
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *arguments):
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", asked
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def listening(reply: bytes | None):
    """Accept connections and send ``reply``; with None, never say a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stopping = threading.Event()

        def answer():
            while True:
                connection, _ = server.accept()
                with connection:
                    if stopping.is_set():
                        return
                    connection.recv(4096)
                    connection.sendall(reply)

        thread = threading.Thread(target=answer) if reply is not None else None
        if thread:
            thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        if thread:
            stopping.set()
            socket.create_connection(server.getsockname()).close()
            thread.join()


def refused() -> str:
    """An address on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/"


def left_behind(folder: Path) -> list[str]:
    """Everything below ``folder``, for messages."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_download_loads_then_reads_from_disk(places, monkeypatch):
    """The files land in ADVLIB_DATA, unpacked and alone; the next load is offline."""
    files = small_mnist()
    publish(monkeypatch, files)
    packed = offer(monkeypatch, files, "")
    with serving(packed) as (address, asked):
        offer(monkeypatch, files, address)
        first = data.load("mnist")
        assert set(asked) == {f"/{name}" for name in packed}
    again = data.load("mnist")  # the server is gone
    for dataset in (first, again):
        x, y = dataset.test
        pixels = files["t10k-images-idx3-ubyte"][16:]
        assert (255 * x).round().byte().numpy().tobytes() == pixels
        assert y.byte().numpy().tobytes() == files["t10k-labels-idx1-ubyte"][8:]
    assert left_behind(places) == sorted(
        ["given", "given/MNIST", f"given/{RAW}", *(f"given/{RAW}/{n}" for n in files)]
    )


def test_download_without_advlib_data_goes_to_the_cache(places, monkeypatch):
    """The user's cache is the only folder then."""
    monkeypatch.delenv("ADVLIB_DATA")
    files = small_mnist()
    publish(monkeypatch, files)
    with serving(offer(monkeypatch, files, "")) as (address, _):
        offer(monkeypatch, files, address)
        data.load("mnist")
    assert data.cache() == places / "cache" / "advlib"
    assert {path.name for path in (data.cache() / RAW).iterdir()} == set(files)


def test_a_download_that_is_not_the_published_file_is_refused(places, monkeypatch):
    """A mirror with other files, right by its own md5: refused at the first load."""
    files = small_mnist()
    with serving(offer(monkeypatch, files, "")) as (address, _):
        offer(monkeypatch, files, address)
        with pytest.raises((ValueError, FileNotFoundError)):
            data.load("mnist")


def test_files_kept_by_an_old_torchvision_are_not_read(places, monkeypatch):
    """MNIST/processed/*.pt would be read unchecked instead of the checked files."""
    files, other = small_mnist(), small_mnist(1)
    publish(monkeypatch, files)
    offer(monkeypatch, files, "")
    (places / "given" / RAW).mkdir(parents=True)
    for name, content in files.items():
        (places / "given" / RAW / name).write_bytes(content)
    processed = places / "given" / "MNIST" / "processed"
    processed.mkdir()
    for part, name in (("train", "training.pt"), ("t10k", "test.pt")):
        pixels = np.frombuffer(other[f"{part}-images-idx3-ubyte"][16:], np.uint8)
        labels = np.frombuffer(other[f"{part}-labels-idx1-ubyte"][8:], np.uint8)
        pair = torch.tensor(pixels).view(-1, 28, 28), torch.tensor(labels).long()
        torch.save(pair, processed / name)
    x, _ = data.load("mnist").test
    expected = files["t10k-images-idx3-ubyte"][16:]
    assert (255 * x).round().byte().numpy().tobytes() == expected


@contextlib.contextmanager
def served_damaged(monkeypatch, how: str):
    """torchvision pointed at a server that fails in the way ``how``."""
    files = small_mnist()
    packed = offer(monkeypatch, files, "")
    if how == "refused":
        offer(monkeypatch, files, refused())
        yield
    elif how in ("silent", "garbage"):
        with listening(None if how == "silent" else b"220 mail ready\r\n") as address:
            offer(monkeypatch, files, address)
            yield
    elif how == "cut off":  # more is promised than comes
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + bytes(100)
        with listening(reply) as address:
            offer(monkeypatch, files, address)
            yield
    else:
        changed = {name: content[:-9] for name, content in packed.items()}
        with serving(changed if how == "wrong md5" else {}) as (address, _):
            offer(monkeypatch, files, address)
            yield


WAYS = ["refused", "silent", "garbage", "cut off", "wrong md5", "404"]


@pytest.fixture
def impatient(monkeypatch):
    """The same time limit, only shorter."""
    real = data._timeout
    monkeypatch.setattr(data, "_timeout", lambda seconds: real(seconds / 20))


def failure(how: str, monkeypatch) -> tuple[type, str]:
    """The kind and the text of the error of ``load("mnist")``.

    urllib leaves the socket of a failed request to the garbage collector, which is
    run here, so that its ResourceWarning falls upon no other test.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        result = type(None), ""
        with served_damaged(monkeypatch, how):
            try:
                data.load("mnist")
            except Exception as error:
                result = type(error), str(error)
        gc.collect()
    return result


@pytest.mark.parametrize("how", WAYS)
def test_a_failed_download_is_file_not_found(places, monkeypatch, impatient, how):
    """Whatever the network does, one kind of error, which says what to set."""
    kind, text = failure(how, monkeypatch)
    assert kind is FileNotFoundError
    for hint in ("MNIST", "ADVLIB_DATA ", "ADVLIB_DATASET=digits", str(places)):
        assert hint in text


@pytest.mark.parametrize("how", WAYS)
def test_a_failed_download_leaves_no_file(places, monkeypatch, impatient, how):
    """Nothing half loaded remains, so the next attempt starts afresh."""
    kind, _ = failure(how, monkeypatch)
    assert issubclass(kind, Exception)
    assert not [path for path in places.rglob("*") if path.is_file()]
    assert not [path for path in places.rglob("*") if "download" in path.name]


def test_a_refused_connection_leaves_no_folder(places, monkeypatch):
    """A mistyped ADVLIB_DATA is not made, nor a cache that stays empty."""
    with served_damaged(monkeypatch, "refused"), pytest.raises(FileNotFoundError):
        data.load("mnist")
    assert left_behind(places) == []


def test_the_time_limit_is_ten_seconds_and_put_back():
    """Inside, every new socket has it; after, also after an error, the old one."""
    socket.setdefaulttimeout(77)
    try:
        with data._timeout(10):
            with socket.socket() as inside:
                assert inside.gettimeout() == 10
        assert socket.getdefaulttimeout() == 77
        with pytest.raises(KeyError), data._timeout(3):
            raise KeyError
        assert socket.getdefaulttimeout() == 77
    finally:
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "denied"), OSError(30, "read-only file system")]
)
def test_a_data_folder_that_cannot_be_written(places, monkeypatch, error):
    """The download goes to the cache instead, and the folder stays as it was."""
    (places / "given").mkdir()
    real = data.tempfile.TemporaryDirectory

    def refuse(*arguments, **options):
        if Path(options["dir"]) == places / "given":
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(data.tempfile, "TemporaryDirectory", refuse)
    files = small_mnist()
    publish(monkeypatch, files)
    with serving(offer(monkeypatch, files, "")) as (address, _):
        offer(monkeypatch, files, address)
        dataset = data.load("mnist")
    assert len(dataset.test[1]) == 20
    assert {path.name for path in (data.cache() / RAW).iterdir()} == set(files)
    assert not [path for path in (places / "given").rglob("*") if path.is_file()]


def test_no_folder_can_be_written(places, monkeypatch):
    """Then the error names all folders that were tried."""

    def refuse(*arguments, **options):
        raise PermissionError(13, "denied")

    monkeypatch.setattr(data.tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(FileNotFoundError, match="can be written") as caught:
        data.load("mnist")
    assert all(str(root) in str(caught.value) for root in data.roots())
    assert "ADVLIB_DATA" in str(caught.value)


# ------------------------------------------------------------------------ folders


def test_roots_are_the_given_folder_then_the_cache(monkeypatch, tmp_path):
    """A relative ADVLIB_DATA is made absolute; an empty one counts as unset."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADVLIB_DATA", "some/where")
    cache = tmp_path / "advlib"
    assert data.roots() == [tmp_path / "some" / "where", cache]
    monkeypatch.setenv("ADVLIB_DATA", "")
    assert data.roots() == [cache]
    monkeypatch.delenv("ADVLIB_DATA")
    assert data.roots() == [cache]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data.cache() == tmp_path / "home" / ".cache" / "advlib"


# ------------------------------------------------------------------------ default


def test_default_as_forced(places, monkeypatch):
    """ADVLIB_DATASET wins, and the note says so."""
    monkeypatch.setenv("ADVLIB_DATASET", "digits")
    dataset = data.default()
    assert dataset.name == "digits"
    assert "ADVLIB_DATASET asks" in str(dataset)
    monkeypatch.setenv("ADVLIB_DATASET", "letters")
    with pytest.raises(ValueError, match="letters"):
        data.default()


def test_default_falls_back_to_digits_and_says_why(places, monkeypatch):
    """Without files and without network."""
    with served_damaged(monkeypatch, "refused"):
        dataset = data.default()
    assert dataset.name == "digits"
    assert "MNIST is neither on disk nor downloadable" in str(dataset)
    assert torch.equal(dataset.train[0], data.load("digits").train[0])


def test_a_forced_mnist_does_not_fall_back(places, monkeypatch):
    """Who asks for MNIST by name gets MNIST or an error."""
    monkeypatch.setenv("ADVLIB_DATASET", "mnist")
    with served_damaged(monkeypatch, "refused"), pytest.raises(FileNotFoundError):
        data.default()


@pytest.mark.parametrize("forced", [None, "mnist"])
def test_default_mnist_needs_no_note_and_shows_no_path(places, monkeypatch, forced):
    """Its text is the same on every machine: no folder in it, no reason."""
    if forced:
        monkeypatch.setenv("ADVLIB_DATASET", forced)
    files = small_mnist()
    publish(monkeypatch, files)
    offer(monkeypatch, files, "")
    (places / "given" / RAW).mkdir(parents=True)
    for name, content in files.items():
        (places / "given" / RAW / name).write_bytes(content)
    text = str(data.default())
    assert text == "mnist: 30 training, 0 validation, 20 test images of 1 x 28 x 28"
    assert os.sep not in text


# -------------------------------------------------------------------------- CIFAR

CIFAR = "cifar-10-batches-py"


def offer_cifar(monkeypatch, address: str) -> None:
    """Make torchvision look for CIFAR-10 at ``address``."""
    kind = torchvision().datasets.CIFAR10
    monkeypatch.setattr(kind, "url", f"{address}cifar-10-python.tar.gz")


@pytest.mark.parametrize("archive", [True, False])
def test_missing_cifar10_names_the_jpeg_copy_if_there_is_one(
    places, monkeypatch, archive
):
    """The way out is named only where it exists."""
    offer_cifar(monkeypatch, refused())
    if archive:
        path = places / "given" / "cifar10_jpeg" / "cifar10-jpeg.tar.xz"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"here")
    with pytest.raises(FileNotFoundError, match="CIFAR-10 is not in") as caught:
        data.load("cifar10")
    assert ('load("cifar10_jpeg")' in str(caught.value)) == archive


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
def test_an_altered_cifar10_file_is_refused_before_it_is_unpickled(places, name):
    """A pickle can run code, so the digest is compared first."""
    marker = places / "ran"
    path = places / "given" / CIFAR / name
    path.parent.mkdir(parents=True)
    path.write_bytes(f"cos\nmkdir\n(V{marker}\ntR.".encode())
    with pytest.raises(ValueError, match=f"{name} is not the published file"):
        data.load("cifar10")
    assert not marker.exists()


def jpeg_archive(per_class: int = 3) -> tuple[bytes, dict]:
    """A small archive of one-colour images; returns its bytes and the colours."""
    colours, buffer = {}, io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        for part in ("train", "test"):
            for c, label in enumerate(("airplane", "bird", "cat")):
                for i in range(per_class):
                    colour = (80 * c + 10, 60 * i + 20, 40 if part == "test" else 200)
                    colours.setdefault((part, c), set()).add(colour)
                    picture = io.BytesIO()
                    Image.new("RGB", (32, 32), colour).save(
                        picture, "JPEG", quality=100, subsampling=0
                    )
                    member = tarfile.TarInfo(f"cifar10/{part}/{label}/{i}.jpg")
                    member.size = picture.tell()
                    picture.seek(0)
                    archive.addfile(member, picture)
    return buffer.getvalue(), colours


def test_cifar10_jpeg_reads_colours_classes_and_splits(places, monkeypatch):
    """Each image's colour says which class and split it came from."""
    content, colours = jpeg_archive()
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(data, "CIFAR10_JPEG_SHA256", digest)
    path = data.cache() / "cifar10_jpeg" / "cifar10-jpeg.tar.xz"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    dataset = data.load("cifar10_jpeg")
    for part, (x, y) in (("train", dataset.train), ("test", dataset.test)):
        assert x.shape == (9, 3, 32, 32)
        assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
        assert y.bincount().tolist() == [3, 3, 3]
        for label in range(3):
            found = 255 * x[y == label].mean((2, 3))
            expected = torch.tensor(sorted(colours[part, label])).float()
            order = found[:, 1].argsort()
            assert torch.allclose(found[order], expected, atol=3)
    assert len(dataset.validation[1]) == 0  # it begins at image 45000
    assert "JPEG" in str(dataset)
    assert (dataset.shape, dataset.num_classes) == ((3, 32, 32), 3)


def test_an_altered_jpeg_archive_is_refused(places):
    """A good archive, but not the published one."""
    path = places / "given" / "cifar10_jpeg" / "cifar10-jpeg.tar.xz"
    path.parent.mkdir(parents=True)
    path.write_bytes(jpeg_archive()[0])
    with pytest.raises(ValueError, match=r"cifar10-jpeg\.tar\.xz is not the published"):
        data.load("cifar10_jpeg")


def test_a_missing_jpeg_archive(places):
    """There is no download for it; the error says where it was looked for."""
    with pytest.raises(FileNotFoundError, match="ADVLIB_DATA") as caught:
        data.load("cifar10_jpeg")
    assert all(str(root) in str(caught.value) for root in data.roots())


# -------------------------------------------------------------------- photographs

RAMP = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
GREY = Image.fromarray((RAMP // 257).astype(np.uint8))
CORNER = Image.new("RGB", (40, 20), "blue")  # wide, its upper left quarter red
CORNER.paste("red", (0, 0, 20, 10))


def stored(picture: Image.Image, path: Path, **options) -> Path:
    """Save ``picture``; return the file."""
    picture.save(path, **options)
    return path


def seen(path: Path, size: int = 32) -> torch.Tensor:
    """The file as ``read_images`` gives it: (3, size, size)."""
    return data.read_images([path], size)[0]


@pytest.mark.parametrize("kind", [">u2", "<u2", np.uint16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, kind, suffix):
    """A ramp of 16 bits looks like the ramp of 8, in either order of bytes."""
    eight = seen(stored(GREY, tmp_path / "8.png"))
    sixteen = seen(stored(Image.fromarray(RAMP.astype(kind)), tmp_path / f"x.{suffix}"))
    assert (sixteen - eight).abs().max() < 0.02
    assert sixteen.min() < 0.1
    assert eight.mean() == pytest.approx(0.484, abs=0.01)


def test_sixteen_bits_as_an_older_pillow_opens_them(tmp_path):
    """It gave mode I to the same PNG; the numbers are still those of 16 bits."""
    wide = Image.fromarray(RAMP.astype(np.int32))
    wide.format = "PNG"
    assert wide.mode == "I"
    found = np.asarray(data._rgb(wide))[..., 0]
    assert abs(found.astype(int) - RAMP / 257).max() <= 0.5


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bits_are_refused(tmp_path, mode):
    """Nobody says which number is white; the error names file and mode."""
    path = stored(
        Image.fromarray(RAMP.astype("i4" if mode == "I" else "f4")),
        tmp_path / "deep.tif",
    )
    with pytest.raises(ValueError, match=rf"deep\.tif .*mode {mode}"):
        data.read_photo(path)


@pytest.mark.parametrize("mode", ["L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_of_eight_bits_looks_the_same(tmp_path, mode):
    """Grey in any dress: within rounding of its file in mode L, three equal colours."""
    picture = GREY.convert("RGB").convert(mode) if mode in ("CMYK", "YCbCr") else None
    picture = picture or (GREY.convert("P") if mode == "PA" else GREY).convert(mode)
    suffix = "png" if mode in ("L", "P", "LA", "RGB", "RGBA") else "tif"
    photo = data.read_photo(stored(picture, tmp_path / f"m.{suffix}"))
    assert photo.mode == "RGB"
    difference = np.asarray(photo).astype(int) - np.asarray(GREY)[..., None]
    assert abs(difference).max() <= 2


def test_one_bit(tmp_path):
    """Black and white, nothing between."""
    path = stored(GREY.point(lambda v: 255 * (v > 99), "1"), tmp_path / "1.png")
    photo = np.asarray(data.read_photo(path))
    assert set(photo.flatten().tolist()) == {0, 255}
    assert (photo[..., 0] == 255).mean() == pytest.approx((RAMP // 257 > 99).mean())


def transparent(mode: str) -> tuple[Image.Image, dict]:
    """A red square whose right half is clear, with black below; how to save it."""
    picture = Image.new("RGBA", (64, 64), "red")
    picture.paste((0, 0, 0, 0), (32, 0, 64, 64))
    if mode == "RGBA":
        return picture, {}
    if mode == "LA":
        return picture.convert("LA"), {}
    flat = picture.convert("RGB")
    if mode == "P":
        flat = flat.quantize(2)
        clear = flat.getpixel((63, 0))
        return flat, {"transparency": bytes(0 if k == clear else 255 for k in (0, 1))}
    return flat, {"transparency": (0, 0, 0)}


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_transparent_pixels_are_white(tmp_path, mode):
    """As on paper; what lies below a clear pixel is no part of the picture."""
    picture, options = transparent(mode)
    photo = np.asarray(data.read_photo(stored(picture, tmp_path / "t.png", **options)))
    assert (photo[:, 32:] == 255).all()
    assert (photo[:, :32] == photo[0, 0]).all()
    assert tuple(photo[0, 0]) == ((76, 76, 76) if mode == "LA" else (255, 0, 0))


def test_half_transparent_is_half_white(tmp_path):
    """Black at half opacity is grey; 16 bits have one clear value, too."""
    half = stored(Image.new("RGBA", (9, 9), (0, 0, 0, 128)), tmp_path / "h.png")
    assert data.read_photo(half).getpixel((0, 0)) == (127, 127, 127)
    deep = Image.fromarray(np.full((9, 9), 300, np.uint16))
    deep.info["transparency"] = 300
    assert data._rgb(deep).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_upright(tmp_path, orientation, suffix):
    """A camera held in each of eight ways: the red quarter is on top left.

    The stored picture is the upright one put through the inverse of what the tag says.
    """
    how = Image.Transpose
    inverse = [None, how.FLIP_LEFT_RIGHT, how.ROTATE_180, how.FLIP_TOP_BOTTOM]
    inverse += [how.TRANSPOSE, how.ROTATE_90, how.TRANSVERSE, how.ROTATE_270]
    turn = inverse[orientation - 1]
    picture = CORNER if turn is None else CORNER.transpose(turn)
    tags = Image.Exif()
    tags[0x0112] = orientation
    photo = data.read_photo(stored(picture, tmp_path / f"o.{suffix}", exif=tags))
    assert photo.size == (40, 20)
    difference = np.asarray(photo).astype(int) - np.asarray(CORNER)
    assert abs(difference)[:8, :16].max() < 60  # JPEG rings at the edges
    assert abs(difference)[12:, 24:].max() < 60


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_image_is_refused_by_name(tmp_path, suffix):
    """At every length that lacks pixels: one kind of error, with the file's name."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    path = stored(Image.fromarray(pixels), tmp_path / f"cut.{suffix}")
    whole = path.read_bytes()
    for length in range(0, len(whole) - 40, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"cut\.{suffix} cannot be read"):
            data.read_images([path], 8)


def test_what_is_no_image_is_refused_by_name(tmp_path):
    """Text, and a file that is not there."""
    path = tmp_path / "page.png"
    path.write_text("<html>not found</html>")
    with pytest.raises(ValueError, match=r"page\.png cannot be read"):
        data.read_photo(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png"):
        data.read_photo(tmp_path / "nowhere.png")


@pytest.mark.parametrize(("files", "size"), [([], 8), (["a.png"], 0)])
def test_no_files_or_no_pixels_are_refused(files, size):
    """Before anything is read."""
    with pytest.raises(ValueError, match="one file or more"):
        data.read_images([Path(name) for name in files], size)


def test_hidden_files_and_folders_are_no_data(tmp_path):
    """What a Mac, Jupyter or an archive leaves there; the root itself may be hidden."""
    root = tmp_path / ".cache" / "set"
    for name in ("cat/1.png", "cat/2.JPG", "dog/1.png", ".ipynb_checkpoints/1.png"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        GREY.save(path)
    for name in ("cat/._1.png", "cat/.hidden.png", "dog/notes.txt", "top.png"):
        (root / name).write_bytes(b"\0\5\x16\7Mac OS X")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "._1.png").write_bytes(b"\0\5\x16\7Mac OS X")
    (root / "dog" / "folder.png").mkdir()
    files, labels, names = data.image_folder(root)
    kept = [str(path.relative_to(root)) for path in files]
    assert kept == ["cat/1.png", "cat/2.JPG", "dog/1.png"]
    assert (labels.tolist(), names) == ([0, 0, 1], ["cat", "dog"])
    assert data.read_images(files, 8).shape == (3, 3, 8, 8)


# ------------------------------------------------------------------- pair and toy


def test_pair_keeps_two_classes_as_signs():
    """Compared with a loop over the images, in their order."""
    split = data.load("digits").test
    x, y = data.pair(split, 3, 8)
    assert y.dtype == torch.float32
    expected = [
        (image, 1.0 if label == 8 else -1.0)
        for image, label in zip(split[0], split[1].tolist(), strict=True)
        if label in (3, 8)
    ]
    assert len(x) == len(expected) > 0
    for image, sign, (wanted, label) in zip(x, y.tolist(), expected, strict=True):
        assert torch.equal(image, wanted)
        assert sign == label


@pytest.mark.parametrize(("negative", "positive"), [(0, 10), (-1, 3), (11, 12)])
def test_pair_refuses_an_absent_class(negative, positive):
    """A class without an image is a slip, not an empty set."""
    with pytest.raises(ValueError, match="present"):
        data.pair(data.load("digits").test, negative, positive)


@pytest.mark.parametrize("name", ["blobs", "moons", "circles"])
@pytest.mark.parametrize("n", [2, 31, 200])
def test_toy_sets_are_two_classes_in_the_unit_square(name, n):
    """n points with a margin to the edge, both labels, the same for a seed."""
    x, y = data.toy(name, n, seed=5)
    assert (x.shape, x.dtype) == ((n, 2), torch.float32)
    assert (y.shape, y.dtype) == ((n,), torch.int64)
    assert torch.allclose(x.min(0).values, torch.tensor(0.05))
    assert torch.allclose(x.max(0).values, torch.tensor(0.95))
    assert set(y.tolist()) == {0, 1}
    assert abs(int((y == 0).sum()) - n / 2) <= 0.5
    again, other = data.toy(name, n, seed=5), data.toy(name, n, seed=6)
    assert torch.equal(x, again[0])
    assert not torch.equal(x, other[0]) or n == 2


@pytest.mark.parametrize(("name", "n"), [("spiral", 10), ("moons", 1), ("blobs", -3)])
def test_toy_refuses(name, n):
    """Another name, or too few points for two classes."""
    with pytest.raises(ValueError, match="blobs"):
        data.toy(name, n)


@needs_mnist
def test_copied_mnist_is_accepted(places):
    """The counterpart of the refusals: an honest copy loads."""
    shutil.copytree(HERE, places / "given" / RAW)
    assert len(data.load("mnist").test[1]) == 10000
