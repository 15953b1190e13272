"""Words as points: corpora, word2vec, compact vectors, and coherence of top words.

A word vector is a row of a matrix (V, d); "dimension i" is the direction e_i, as a
unit of a network is (see ``units``). The question is the same: are the words on top of
e_i more alike than those on top of a random direction? gensim trains the vectors and
is needed for nothing else; without it the committed vectors still load.
"""

from advlib.words.coherence import (
    frequency_bins,
    length_by_frequency,
    mean_cosine,
    mean_lift,
    presence,
    rotated_bases,
    same_frequency,
)
from advlib.words.corpora import (
    CHARACTERS,
    CORPORA,
    IMDB8,
    IMDB8_SHA256,
    Corpus,
    load_corpus,
    split,
)
from advlib.words.vectors import (
    LEVELS,
    Vectors,
    both,
    compress,
    expand,
    load,
    save,
    train,
    unit_length,
)

__all__ = [
    "CHARACTERS",
    "CORPORA",
    "IMDB8",
    "IMDB8_SHA256",
    "LEVELS",
    "Corpus",
    "Vectors",
    "both",
    "compress",
    "expand",
    "frequency_bins",
    "length_by_frequency",
    "load",
    "load_corpus",
    "mean_cosine",
    "mean_lift",
    "presence",
    "rotated_bases",
    "same_frequency",
    "save",
    "split",
    "train",
    "unit_length",
]
