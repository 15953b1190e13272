"""Corpora, word vectors, their compact form, and the coherence of top words."""

import importlib.util
import itertools
import json
import math
import socket
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from advlib import data, results, units, words
from advlib.words import corpora, vectors

MODEST = settings(deadline=None, max_examples=60, derandomize=True, database=None)
TEXT = ["the", "cat", "sat"]
HAVE_IMDB8 = any((root / words.IMDB8).is_file() for root in data.roots())


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers from ``seed``."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Results go to a folder of their own."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


@pytest.fixture
def small():
    """Three vectors whose largest entries are whole: compact form is exact."""
    matrix = torch.tensor([[127.0, 1, -3], [0, -254, 2], [127, 127, 0]])
    return words.Vectors(TEXT, torch.tensor([9, 4, 1]), matrix, "three words")


# ------------------------------------------------------------------------- corpora


def fake_downloader(monkeypatch, load) -> None:
    """Let gensim's downloader be ``load``."""
    module = SimpleNamespace(load=load)
    monkeypatch.setattr(corpora, "import_gensim", lambda name: module)


def test_unknown_corpus():
    """The error names what there is."""
    with pytest.raises(ValueError, match=r"unknown corpus 'brown'.*text8"):
        words.load_corpus("brown")


def test_imdb8_truncated_or_altered(tmp_path, monkeypatch):
    """A file that is there but not whole is refused, not passed over."""
    path = tmp_path / words.IMDB8
    path.parent.mkdir()
    monkeypatch.setenv("ADVLIB_DATA", str(tmp_path))
    path.write_bytes(b"\xfd7zXZ\x00 half a file")
    with pytest.raises(ValueError, match="truncated or altered"):
        words.load_corpus("imdb8")
    fake_downloader(monkeypatch, lambda name: (_ for _ in ()).throw(OSError("no net")))
    with pytest.raises(ValueError, match="truncated or altered"):
        words.load_corpus()


def test_imdb8_absent(tmp_path, monkeypatch):
    """FileNotFoundError says where was looked."""
    monkeypatch.setenv("ADVLIB_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match=r"imdb8\.xz is in none of"):
        words.load_corpus("imdb8")


@pytest.mark.skipif(not HAVE_IMDB8, reason="imdb8 is not on disk")
def test_imdb8_is_whole():
    """More than 15 million words of the letters a to z, one object for each type."""
    corpus = words.load_corpus("imdb8")
    assert len(corpus.words) == 18_755_896
    first = {}
    assert all(first.setdefault(w, w) is w for w in corpus.words[:10_000])
    assert str(corpus) == "imdb8: 18755896 words"


def test_text8_is_tried_first(monkeypatch):
    """What the downloader gives is joined; another size is refused."""
    parts = [["a" * 9] * 1000, ["b" * 9] * 1000]
    fake_downloader(monkeypatch, lambda name: parts)
    monkeypatch.setattr(corpora, "CHARACTERS", 20_000)
    corpus = words.load_corpus()
    assert (corpus.name, len(corpus.words), corpus.note) == ("text8", 2000, "")
    monkeypatch.setattr(corpora, "CHARACTERS", 30_000)
    with pytest.raises(ValueError, match="19999 characters"):
        words.load_corpus()


@pytest.mark.parametrize("error", [OSError("down"), ValueError("unable to read")])
def test_without_network_the_next_corpus_is_taken(monkeypatch, error):
    """Each step down is told; text8 alone says that it could not be had."""

    def load(name):
        raise error

    fake_downloader(monkeypatch, load)
    other = words.Corpus("imdb8", TEXT)
    monkeypatch.setitem(corpora._LOADERS, "imdb8", lambda timeout: other)
    found = words.load_corpus()
    assert (found.name, found.note) == ("imdb8", "text8 cannot be had")
    with pytest.raises(FileNotFoundError, match="text8 could not be downloaded"):
        words.load_corpus("text8")


def test_small_corpus_is_last(tmp_path, monkeypatch):
    """With neither of the large ones, gensim's own; without gensim, an error."""
    monkeypatch.setenv("ADVLIB_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lee = words.Corpus("lee", TEXT)
    monkeypatch.setitem(corpora._LOADERS, "lee", lambda timeout: lee)
    fake_downloader(monkeypatch, lambda name: (_ for _ in ()).throw(OSError("no net")))
    assert words.load_corpus().note == "text8 and imdb8 cannot be had"
    monkeypatch.undo()
    monkeypatch.setenv("ADVLIB_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in ("gensim.downloader", "gensim.test.utils"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(FileNotFoundError, match="pip install gensim"):
        words.load_corpus()


def test_silent_server_does_not_hang(monkeypatch):
    """A server that takes the call and says nothing: the time-out ends it."""
    with socket.create_server(("127.0.0.1", 0)) as server:  # the queue takes the call
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        fake_downloader(monkeypatch, lambda name: direct.open(url))
        before = socket.getdefaulttimeout()
        began = time.monotonic()
        with pytest.raises(FileNotFoundError, match=r"text8 could not be.*timed out"):
            words.load_corpus("text8", timeout=0.3)
        assert 0.2 < time.monotonic() - began < 10
        assert socket.getdefaulttimeout() == before


@pytest.mark.parametrize("call", ["train", "lee"])
def test_without_gensim(monkeypatch, call):
    """The error says how to install it, and what works without."""
    for module in ("gensim.models.word2vec", "gensim.test.utils"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install gensim.*words\.load"):
        words.load_corpus("lee") if call == "lee" else words.train([TEXT], seed=0)


def test_split():
    """Seven words in pieces of two, each second held out; the rest is a piece."""
    kept, held_out = words.split(list("abcdefg"), size=2, every=2)
    assert kept == [["a", "b"], ["e", "f"]]
    assert held_out == [["c", "d"], ["g"]]


@pytest.mark.parametrize(
    ("number", "size", "every"), [(9, 1, 10), (9, 0, 2), (9, 2, 1), (0, 1, 2)]
)
def test_split_refuses(number, size, every):
    """No held-out part, no size, no training part, no words."""
    with pytest.raises(ValueError, match=r"held out|need size"):
        words.split(["a"] * number, size=size, every=every)


# ------------------------------------------------------------------------- vectors


@pytest.mark.parametrize(
    "change",
    [
        {"words": ["the", "the", "sat"]},
        {"words": ["the", "cat"]},
        {"counts": torch.tensor([1, 2])},
        {"counts": torch.tensor([1, 2, 0])},
        {"matrix": torch.zeros(3)},
        {"matrix": torch.full((3, 2), math.nan)},
    ],
)
def test_vectors_that_do_not_fit(small, change):
    """A word twice, sizes that differ, a count of 0, NaN."""
    parts = {"words": small.words, "counts": small.counts, "matrix": small.matrix}
    with pytest.raises(ValueError, match=r"one word|finite"):
        words.Vectors(**parts | change)


def test_rows(small):
    """Places become words."""
    top = torch.tensor([[2, 0], [1, 1]])
    assert small.rows(top) == [["sat", "the"], ["cat", "cat"]]


def test_unit_length():
    """3, 4, 5; and a vector without direction is refused."""
    unit = words.unit_length(torch.tensor([[3.0, 4], [0, -2]]))
    assert torch.allclose(unit, torch.tensor([[0.6, 0.8], [0, -1]]))
    for bad in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="no direction"):
            words.unit_length(torch.tensor([[1.0, 0], [bad, bad]]))


# ----------------------------------------------------------------- compact vectors


@MODEST
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 99), st.floats(-9, 9))
def test_compress_is_off_by_half_a_scale(v, d, seed, power):
    """For any sizes and magnitudes; 127 is reached in every row."""
    matrix = gaussian(v, d, seed=seed) * 10**power
    numbers, scale = words.compress(matrix)
    assert numbers.dtype == torch.int8
    assert (numbers.int().abs().amax(1) == 127).all()
    off = (words.expand(numbers, scale) - matrix).abs()
    assert (off <= 0.501 * scale[:, None]).all()


def test_compress_keeps_the_order_on_top():
    """Plain rounding swaps top words of random vectors; with directions it does not."""
    matrix = gaussian(4000, 20)
    g = torch.Generator().manual_seed(1)
    random = units.random_directions(4, 20, generator=g)
    directions = torch.cat([torch.eye(20)[:4].double(), random])
    plain = words.expand(*words.compress(matrix))
    kept = words.expand(*words.compress(matrix, directions))
    wrong = {"plain": 0, "kept": 0}
    for name, other in (("plain", plain), ("kept", kept)):
        for a, b in zip(words.both(matrix), words.both(other), strict=True):
            tops = [units.top_images(m, directions, 10) for m in (a, b)]
            wrong[name] += int((tops[0] != tops[1]).any(1).sum())
    assert wrong["kept"] == 0 < wrong["plain"]
    assert (kept - matrix).norm() < 0.01 * matrix.norm()


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_compress_refuses(bad):
    """No scale makes 127 of nothing."""
    with pytest.raises(ValueError, match="cannot be scaled"):
        words.compress(torch.tensor([[1.0, 2], [bad, bad]]))


def test_saved_vectors_come_back(small, folder):
    """Words, counts, numbers and source; the record says how they were made."""
    path = words.save("three", small, command="make it", seed=7, seconds=2)
    assert path.parent == folder
    found = words.load("three")
    assert found.words == small.words
    assert found.note == "three words"
    assert torch.equal(found.counts, small.counts)
    assert torch.allclose(found.matrix, small.matrix)
    record = results.load("words_three")
    assert (record["command"], record["seeds"]) == ("make it", [7])


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "record"])
def test_damaged_vectors_are_refused(small, folder, damage):
    """Half a file, one bit, no file, another digest."""
    path = words.save("three", small, command="make it", seed=7, seconds=2)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "gone":
        path.unlink()
    else:
        record = folder / "words_three.json"
        record.write_text(record.read_text().replace("make it", "made it"))
    kind = FileNotFoundError if damage == "gone" else ValueError
    with pytest.raises(kind, match=r"altered|No such file"):
        words.load("three")


def test_only_plain_words_are_saved(small, folder):
    """A word with a line break would come back as two."""
    odd = words.Vectors(["a b", "c", "d"], small.counts, small.matrix)
    with pytest.raises(ValueError, match="letters a to z"):
        words.save("odd", odd, command="", seed=0, seconds=0)
    assert not folder.exists()


# ----------------------------------------------------------------------- coherence


def test_mean_cosine_by_hand():
    """Three pairs: cosines 0, 0.6 and 0.8; and a word twice has cosine 1."""
    unit = torch.tensor([[1.0, 0], [0, 1], [0.6, 0.8]])
    top = torch.tensor([[0, 1, 2]])
    assert words.mean_cosine(unit, top).item() == pytest.approx(1.4 / 3)
    assert words.mean_cosine(unit, torch.tensor([[1, 1]])).item() == pytest.approx(1)
    assert words.mean_cosine(unit, torch.tensor([[0, 1]])).item() == pytest.approx(0)


@MODEST
@given(st.integers(2, 6), st.integers(1, 5), st.integers(0, 99))
def test_mean_cosine_by_all_pairs(k, d, seed):
    """Brute force over pairs."""
    matrix = gaussian(12, d, seed=seed).double()
    top = torch.randint(12, (3, k), generator=torch.Generator().manual_seed(seed))
    found = words.mean_cosine(words.unit_length(matrix), top)
    for row, value in zip(top.tolist(), found.tolist(), strict=True):
        pairs = [
            torch.cosine_similarity(matrix[i], matrix[j], dim=0).item()
            for i, j in itertools.combinations(row, 2)
        ]
        assert value == pytest.approx(np.mean(pairs), abs=1e-9)


def test_mean_cosine_refuses():
    """Raw vectors, NaN, and a single word."""
    top = torch.tensor([[0, 1]])
    for bad in (2.0, math.nan):
        with pytest.raises(ValueError, match="vectors of length 1"):
            words.mean_cosine(torch.tensor([[bad, 0], [0, 1.0]]), top)
    with pytest.raises(ValueError, match="two words"):
        words.mean_cosine(torch.eye(2), top[:, :1])


def test_frequency_bins():
    """[1], [2, 3], [4, 7], [8, 15]: the end points of each."""
    counts = torch.tensor([1, 2, 3, 4, 7, 8, 15, 16])
    assert words.frequency_bins(counts).tolist() == [1, 2, 2, 3, 3, 4, 4, 5]
    with pytest.raises(ValueError, match="at least 1"):
        words.frequency_bins(torch.tensor([1, 0]))


def test_same_frequency():
    """Each word gets one of its bin, none twice in a row, all in turn, by seed."""
    counts = torch.tensor([100] * 5 + [10] * 4 + [1])
    top = torch.tensor([[0, 1, 5, 9], [5, 6, 7, 4]])
    bins = words.frequency_bins(counts)
    seen = torch.zeros(10)
    for seed in range(60):
        g = torch.Generator().manual_seed(seed)
        drawn = words.same_frequency(counts, top, generator=g)
        assert torch.equal(bins[drawn], bins[top])
        assert all(len(set(row)) == 4 for row in drawn.tolist())
        seen += torch.bincount(drawn[1], minlength=10)
    assert (seen[:9] > 0).all()
    assert seen[9] == 0
    again = words.same_frequency(
        counts, top, generator=torch.Generator().manual_seed(59)
    )
    assert torch.equal(again, drawn)


def test_presence_by_hand():
    """Blocks of three; the rest of a sentence is left out, unknown words too."""
    sentences = [["a", "b", "a", "c", "x", "b", "a"], ["c", "c", "c"]]
    present = words.presence(sentences, ["a", "b", "c"], block=3)
    assert present.toarray().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    with pytest.raises(ValueError, match="8 words"):
        words.presence(sentences, ["a"], block=8)


def test_mean_lift_by_hand():
    """Four blocks: a and b always meet; a and c never; the pairs' mean."""
    sentences = [["a", "b"], ["a", "b"], ["c", "x"], ["x", "x"]]
    present = words.presence(sentences, ["a", "b", "c"], block=2)
    found = words.mean_lift(present, torch.tensor([[0, 1], [0, 2]]))
    together, apart = math.log2(3 / 2), math.log2(1 / 1.5)
    assert found.tolist() == pytest.approx([together, apart])
    three = words.mean_lift(present, torch.tensor([[0, 1, 2]]))
    assert three.item() == pytest.approx((together + 2 * apart) / 3)
    with pytest.raises(ValueError, match="two words"):
        words.mean_lift(present, torch.tensor([[0]]))


def test_independent_words_have_no_lift():
    """Coins: far from 0 only for words that were made to meet."""
    coins = np.random.default_rng(0).random((6, 20_000)) < 0.1
    coins[5] = coins[4]
    letters = np.array([*"abcdef", "x"])
    sentences = [
        [*letters[:6][column], *["x"] * (6 - column.sum())] for column in coins.T
    ]
    present = words.presence(sentences, list("abcdef"), block=6)
    lift = words.mean_lift(present, torch.tensor([[0, 1], [2, 3], [4, 5]]))
    assert lift[:2].abs().max() < 0.25
    assert lift[2].item() == pytest.approx(math.log2(10), abs=0.1)


def test_rotated_bases_by_hand():
    """The same as turning the matrix and reading its columns."""
    matrix = gaussian(60, 5)
    g, again = (torch.Generator().manual_seed(3) for _ in range(2))
    found = words.rotated_bases(matrix, k=4, num=3, generator=g)
    for value in found.tolist():
        turned = matrix.double() @ units.random_rotation(5, generator=again).T
        unit = (turned / turned.norm(dim=1, keepdim=True)).numpy()
        tops = np.argsort(-turned.numpy(), axis=0)[:4].T
        cosines = [
            np.mean([unit[i] @ unit[j] for i, j in itertools.combinations(row, 2)])
            for row in tops
        ]
        assert value == pytest.approx(np.mean(cosines), abs=1e-6)


def test_rotated_bases_find_axes_that_are_special():
    """Clusters along the axes: no turned basis comes near."""
    matrix = 3 * torch.eye(20).repeat(10, 1) + 0.5 * gaussian(200, 20)
    g = torch.Generator().manual_seed(0)
    others = words.rotated_bases(matrix, k=5, num=40, generator=g)
    assert own_coherence(matrix) > others.max() + 0.2


def test_rotated_bases_are_an_exact_test():
    """Axes that mean nothing: their rank among 19 turned bases is uniform."""
    ranks = []
    for seed in range(60):
        matrix = gaussian(100, 10, seed=seed)
        g = torch.Generator().manual_seed(1000 + seed)
        others = words.rotated_bases(matrix, k=5, num=19, generator=g)
        ranks.append(int((others < own_coherence(matrix)).sum()))
    halves = np.bincount(np.array(ranks) // 5, minlength=4)  # 15 expected in each
    assert halves.sum() == 60
    assert ((halves - 15) ** 2 / 15).sum() < 16.3  # chi squared, 3 degrees, 0.1 %


def own_coherence(matrix: torch.Tensor) -> torch.Tensor:
    """Mean coherence of the axes, with five words each."""
    top = units.top_images(matrix, torch.eye(matrix.shape[1]), 5)
    return words.mean_cosine(words.unit_length(matrix), top).mean()


def test_length_by_frequency_by_hand():
    """Two bins; the middle of [4, 7] is the root of 4 times 8."""
    matrix = torch.tensor([[3.0, 4], [0, 1], [1, 0], [0, 3]])
    counts = torch.tensor([100, 4, 5, 7])
    vectors = words.Vectors([*"abcd"], counts, matrix)
    low, high = words.length_by_frequency(vectors)
    assert low["count"] == pytest.approx(math.sqrt(32))
    assert (low["words"], low["median"]) == (3, 1)
    assert low["high"] == pytest.approx(2.6)
    assert (high["words"], high["low"], high["high"]) == (1, 5, 5)


# ------------------------------------------------------------------ gensim, for real


@pytest.fixture(scope="module")
def lee():
    """The small corpus in pieces of 500 words."""
    pytest.importorskip("gensim", reason="gensim is not installed")
    corpus = words.load_corpus("lee")
    assert len(corpus.words) > 50_000
    return words.split(corpus.words, size=500)


@pytest.mark.parametrize("sg", [False, True])
def test_training_commutes_with_rotations(lee, sg):
    """A turned start ends at the turned vectors, so the axes mean nothing."""
    g = torch.Generator().manual_seed(0)
    rotation = units.random_rotation(30, generator=g).float()
    setting = {"seed": 1, "sg": sg, "dimension": 30, "epochs": 2}
    plain = words.train(lee[0], **setting)
    turned = words.train(lee[0], **setting, rotation=rotation)
    assert plain.words == turned.words
    size = plain.matrix.norm()
    assert (plain.matrix @ rotation - turned.matrix).norm() < 1e-3 * size
    assert (plain.matrix - turned.matrix).norm() > size


def test_training_learns_and_repeats(lee):
    """The same seed gives the same vectors; they predict held-out company."""
    found = words.train(lee[0], seed=1, sg=True, epochs=10)
    assert torch.equal(
        found.matrix, words.train(lee[0], seed=1, sg=True, epochs=10).matrix
    )
    assert found.counts.min() >= 5
    assert found.counts.tolist() == sorted(found.counts.tolist(), reverse=True)
    assert found.counts[0] == sum(piece.count("the") for piece in lee[0])
    unit = words.unit_length(found.matrix)
    near = units.top_images(unit, unit[100:300].double(), 5)
    present = words.presence(lee[1], found.words, block=50)
    g = torch.Generator().manual_seed(0)
    chance = words.same_frequency(found.counts, near, generator=g)
    gain = (
        words.mean_lift(present, near).mean() - words.mean_lift(present, chance).mean()
    )
    assert gain > 0.02


def test_training_refuses_a_corpus_of_rare_words():
    """No word five times: nothing to train."""
    pytest.importorskip("gensim", reason="gensim is not installed")
    with pytest.raises(ValueError, match="5 times"):
        words.train([TEXT], seed=0)


# --------------------------------------------------------------- what is committed


def experiment():
    """The module of the long experiment."""
    path = Path(__file__).parent.parent / "tools/experiments/words.py"
    spec = importlib.util.spec_from_file_location("words_experiment", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_committed_vectors_give_the_tables_of_the_float32_vectors():
    """Full vocabulary of a corpus of 15 million words, in 6 MB, the same tables."""
    found, record = words.load("imdb8"), results.load("words")
    stored = vectors._path("imdb8").stat().st_size
    stored += (results.RESULTS / "words_imdb8.json").stat().st_size
    assert stored <= 6_000_000
    assert int(found.counts.sum()) > 15_000_000
    assert found.counts.min() == 5
    tables, shown = record["data"]["models"]["cbow-1"]["tables"], experiment()
    for form, matrix in zip(("raw", "unit"), words.both(found.matrix), strict=True):
        for name in ("dimensions", "gaussian"):
            directions = shown.groups(shown.SHOWN, 0)[name][: shown.SHOWN]
            top = units.top_images(matrix, directions, shown.K)
            assert found.rows(top) == tables[f"{form}, {name}"]


def test_committed_summary_follows_from_the_runs():
    """The intervals over seeds are those of the runs in the file."""
    content = results.load("words")["data"]
    again = experiment().over_seeds(content["models"])
    assert json.loads(json.dumps(again)) == content["over_seeds"]


def test_the_experiment_runs(lee, folder, tmp_path, monkeypatch):
    """All of it, on the small corpus, with few directions; a second run is free."""
    module = experiment()
    for name, value in {"RANDOM": 20, "TURNS": 3, "FREQUENT": 20, "SHOWN": 2}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(module, "corpus", lambda source: lee)
    arguments = ["--cache", str(tmp_path / "cache"), "--corpus", "lee"]
    module.main(arguments)
    content = results.load("words")["data"]
    assert set(content["models"]) == set(module.MODELS)
    assert set(content["lengths"]) == {*module.MODELS, *module.LENGTHS}
    made = words.load("lee")
    table = content["models"]["cbow-1"]["tables"]["unit, dimensions"]
    top = units.top_images(words.unit_length(made.matrix), torch.eye(100)[:2], 10)
    assert made.rows(top) == table
    monkeypatch.setattr(words, "train", None)
    module.main(arguments)
    assert results.load("words")["data"] == content


# ---------------------------------------------------- directions that are special


@pytest.fixture
def special(monkeypatch):
    """The module of the experiment, which finds its neighbour by its name."""
    folder = Path(__file__).parent.parent / "tools/experiments"
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("words_axes")


def sources(number: int, seed: int) -> torch.Tensor:
    """Independent sources (number, 5), each with a long tail upwards."""
    tails = np.random.default_rng(seed).exponential(size=(number, 5))
    return torch.from_numpy(tails - 1)


def test_components_find_mixed_sources(special):
    """Five long tails, mixed: the directions found give the sources back, tail up."""
    s = sources(4000, 0)
    mix = gaussian(5, 5, seed=3).double()
    ica, converged = special.fitted(s @ mix, 0)
    assert converged
    found = special.oriented(s @ mix, torch.from_numpy(ica.components_))
    along = torch.corrcoef(torch.cat([found @ (s @ mix).T, s.T]))[:5, 5:]
    assert (along.amax(1) > 0.98).all()
    assert sorted(along.argmax(1).tolist()) == [0, 1, 2, 3, 4]
    assert torch.allclose(found.norm(dim=1), torch.ones(5).double())


def test_agreement_knows_a_turned_copy(special):
    """The same axes in a turned copy agree fully, other axes do not."""
    s, eye = sources(2000, 1), torch.eye(5).double()
    g = torch.Generator().manual_seed(0)
    q = units.random_rotation(5, generator=g)
    same = special.agreement(s, eye, s @ q.T, eye @ q.T)
    assert same["median"] == pytest.approx(1)
    assert same["above 0.9"] == 1
    assert special.agreement(s, eye, s @ q.T, eye)["median"] < 0.95


def test_the_experiment_on_components_runs(lee, special, tmp_path, monkeypatch):
    """One seed on the small corpus; its rows hold words, its gains are of all kinds."""
    for name, value in {"SOURCE": "lee", "STATES": [0], "RANDOM": 100}.items():
        monkeypatch.setattr(special, name, value)
    monkeypatch.setattr(special.long, "corpus", lambda source: lee)
    row = special.measured(1, tmp_path)
    kinds = {"dimensions", "random", "whitened", "principal", "ica 0"}
    assert set(row["means"]) == kinds
    assert len(row["rows"]["ica"]) == 100
    assert len(set(row["rows"]["ica"][0])) == special.SHOWN


def test_committed_components_are_special():
    """By both scores, over three seeds of the vectors; not so in vectors of noise."""
    content = results.load("words_axes")["data"]
    for name, (mean, low, high) in content["over_seeds"].items():
        assert low <= mean <= high
        if name.startswith(("dimensions", "random", "whitened")):
            assert low > 0, name
    assert (
        content["noise"]["difference"][2]
        < 0.1 * content["over_seeds"]["whitened, cosine"][0]
    )
    assert content["rounding"]["unit"]["words kept"] > 0.9
