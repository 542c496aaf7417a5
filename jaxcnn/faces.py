"""Who is it (identification), and are these two one (verification)? By the cosine of two
embeddings, of people whom the net may never have seen.

An embedding is the features of a layer (transfer.py), by default what the last layer is given.

- Identification: some pictures of each person are enrolled, the others are to be named; the
  cumulative match characteristic tells how often the right person is among the k most similar.
  Phillips et al. 2000, The FERET evaluation methodology, IEEE PAMI 22(10).
- Verification: the receiver operating characteristic of all pairs; the equal error rate, where as
  many false pairs are accepted as true ones rejected; the share of true pairs accepted (TAR) where
  a given share of false ones is (FAR).
- The protocol of Labeled Faces in the Wild: 10 folds of pairs, each judged by the threshold that is
  best on the other nine. Huang et al. 2007, UMass Amherst, technical report 07-49, section 4.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.metrics import roc_curve

from jaxcnn import starts
from jaxcnn.config import InputError, Run
from jaxcnn.data.sources import Dataset
from jaxcnn.nets import Problem
from jaxcnn.step import State

FARS = (0.1, 0.01, 0.001)
MOST = 4000  # pictures of which all pairs are looked at; of more, so many drawn by seed 0
EIGENFACES = 100


class Verification(NamedTuple):
    """Over falling thresholds, from one that accepts none to one that accepts all."""

    false_accepted: np.ndarray  # [T]: the share of the pairs of two people
    true_accepted: np.ndarray  # [T]: of the pairs of one person
    pairs: tuple[int, int]  # of two people, of one

    @property
    def equal_error(self) -> float:
        """Between thresholds, linear."""
        gap = self.false_accepted - (1 - self.true_accepted)
        after = int(np.argmax(gap >= 0))
        if after == 0 or gap[after] == gap[after - 1]:
            return float(self.false_accepted[after])
        share = gap[after - 1] / (gap[after - 1] - gap[after])
        before, behind = self.false_accepted[after - 1], self.false_accepted[after]
        return float(before + share * (behind - before))

    def true_at(self, far: float) -> float:
        """The most that any threshold accepts of true pairs, and at most `far` of the false ones;
        not a number where one false pair is more than `far`.
        """
        if far * self.pairs[0] < 1:
            return math.nan
        return float(self.true_accepted[self.false_accepted <= far].max())


class Judged(NamedTuple):
    name: str
    verification: Verification
    matches: np.ndarray  # [people]: the right one is among the first 1, 2, ...
    pictures: int

    @property
    def rank1(self) -> float:
        return float(self.matches[0])


def normalized(embeddings: np.ndarray) -> np.ndarray:
    """[N, ...] -> [N, D] of length 1."""
    flat = embeddings.reshape(len(embeddings), -1).astype(np.float64)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)


def verification(scores: np.ndarray, same: np.ndarray) -> Verification:
    """scores [P] of pairs, the higher the more alike; same [P] bool: whether of one person."""
    true = int(same.sum())
    if not 0 < true < len(same):
        raise InputError(f"verification: {true} of {len(same)} pairs are of one person; some must.")
    false_accepted, true_accepted, _ = roc_curve(same, scores, drop_intermediate=False)
    return Verification(false_accepted, true_accepted, (len(same) - true, true))


def all_pairs(embeddings: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """embeddings [N, D] of length 1, labels [N] -> scores and same of each pair, once."""
    first, second = np.triu_indices(len(labels), 1)
    return (embeddings @ embeddings.T)[first, second], labels[first] == labels[second]


def matches(embeddings: np.ndarray, labels: np.ndarray, gallery: int = 1) -> np.ndarray:
    """[people]: the share of pictures whose person is among the k most similar, k = 1, 2, ...

    `gallery` pictures of each person are enrolled, the most similar counts; each picture in turn:
    the mean over as many rounds as the person with fewest pictures allows. Raises `InputError`
    where that one has none left to name.
    """
    people, labels = np.unique(labels, return_inverse=True)
    fewest = int(np.bincount(labels).min())
    if fewest <= gallery:
        raise InputError(
            f"--gallery: {gallery}; a person with {fewest} pictures has none left to be named."
        )
    place = np.zeros(len(labels), int)  # of a picture among its person's
    for k in range(len(people)):
        place[labels == k] = np.arange((labels == k).sum())
    similar = embeddings @ embeddings.T
    rounds = []
    for begin in range(0, fewest - gallery + 1, gallery):
        enrolled = (place >= begin) & (place < begin + gallery)
        best = np.stack(
            [similar[:, enrolled & (labels == k)].max(1) for k in range(len(people))], 1
        )[~enrolled]
        own = np.take_along_axis(best, labels[~enrolled][:, None], 1)
        # Of equals the right one is the last: a net that maps all to one point names nobody.
        rank = (best >= own).sum(1)
        rounds.append((rank[:, None] <= np.arange(1, len(people) + 1)).mean(0))
    return np.mean(rounds, 0)


def judged(name: str, embeddings: np.ndarray, labels: np.ndarray, gallery: int = 1) -> Judged:
    """embeddings [N, ...], labels [N]."""
    if len(labels) > MOST:
        chosen = np.random.default_rng(0).permutation(len(labels))[:MOST]
        own = normalized(embeddings[chosen]), labels[chosen]
    else:
        own = normalized(embeddings), labels
    known = normalized(embeddings)
    scores = verification(*all_pairs(*own))
    return Judged(name, scores, matches(known, labels, gallery), len(labels))


def layer(run: Run, problem: Problem) -> str:
    """The layer whose features the last one is given."""
    return list(starts.feature_shapes(run, problem))[-2]


def of_unseen(run: Run, problem: Problem, state: State, data: Dataset) -> dict[str, float]:
    """What test.json says of a run with `data.unseen`: as `error` one minus the rank-1 rate with
    one picture of each person enrolled, and as `eer` the equal error rate.
    """
    name = layer(run, problem)
    found = starts.features(run, problem, state, data, name, data.test.images)
    whole = judged(name, found, data.test.labels)
    rate = whole.verification.equal_error
    return {"error": 1 - whole.rank1, "eer": rate, "count": whole.pictures}


def baselines(data: Dataset, split: str, gallery: int = 1) -> list[Judged]:
    """The same of pixels, and of principal components of the training pictures (eigenfaces)."""
    part: Any = getattr(data, split)
    train = data.train.images.reshape(len(data.train.images), -1).astype(np.float32)
    pixels = part.images.reshape(len(part.images), -1).astype(np.float32)
    count = min(EIGENFACES, *train.shape)
    faces = PCA(count, svd_solver="full").fit(train)
    pairs = {"pixels": pixels - train.mean(0), f"{count} eigenfaces": faces.transform(pixels)}
    return [judged(name, found, part.labels, gallery) for name, found in pairs.items()]


# Labeled Faces in the Wild ----------------------------------------------------------------------


class Pair(NamedTuple):
    first: str  # NAME/NAME_0001
    second: str
    same: bool


def read_pairs(path: Path) -> list[list[Pair]]:
    """The folds of a file like LFW's pairs.txt. Raises `InputError` naming the line that is not.

    Its first line has how many folds there are, and n; each fold has n lines of one person (name,
    picture, picture) and n of two (name, picture, name, picture), split by tabs or spaces.
    """
    try:
        lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--pairs: {str(path)!r} cannot be read ({error}).") from error
    head = lines[0] if lines else []
    if len(head) != 2 or not all(word.isdigit() and int(word) > 0 for word in head):
        raise InputError(
            f"--pairs: {str(path)!r} must begin with how many folds and pairs, like '10 300', not"
            f" {' '.join(head)!r}."
        )
    folds, count = map(int, head)
    if folds < 2 or len(lines) - 1 != 2 * folds * count:
        raise InputError(
            f"--pairs: {str(path)!r} has {len(lines) - 1} pairs; {folds} folds of {count} and"
            f" {count} are {2 * folds * count}, and two folds the least."
        )
    pairs = [_pair(path, number, words) for number, words in enumerate(lines[1:], 2)]
    each = 2 * count
    return [pairs[i : i + each] for i in range(0, len(pairs), each)]


def _pair(path: Path, number: int, words: Sequence[str]) -> Pair:
    def picture(name: str, which: str) -> str:
        return f"{name}/{name}_{int(which):04d}"

    try:
        if len(words) == 3:
            name, first, second = words
            return Pair(picture(name, first), picture(name, second), True)
        name, first, other, second = words
        return Pair(picture(name, first), picture(other, second), False)
    except ValueError:
        raise InputError(f"--pairs: {str(path)!r}, line {number}: {' '.join(words)!r}.") from None


def files(folds: Sequence[Sequence[Pair]], root: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Picture -> its file, ROOT/NAME/NAME_0001.jpg; raises `InputError` for the missing."""
    names = dict.fromkeys(n for fold in folds for pair in fold for n in (pair.first, pair.second))
    found = {
        name: file
        for name in names
        for file in (root / f"{name}{suffix}" for suffix in suffixes)
        if file.is_file()
    }
    if missing := [name for name in names if name not in found]:
        raise InputError(
            f"--pictures: {str(root)!r} lacks {len(missing)} of the {len(names)} pictures of"
            f" --pairs: {', '.join(missing[:3])}."
        )
    return found


def by_folds(
    folds: Sequence[Sequence[Pair]], score: Callable[[Pair], float]
) -> tuple[np.ndarray, Verification]:
    """The accuracy of each fold, [F], by the threshold that is best on the others; and the
    characteristic of all pairs.
    """
    scores = [np.array([score(pair) for pair in fold]) for fold in folds]
    same = [np.array([pair.same for pair in fold]) for fold in folds]
    accuracies = []
    for i in range(len(folds)):
        others = np.concatenate([s for k, s in enumerate(scores) if k != i])
        told = np.concatenate([s for k, s in enumerate(same) if k != i])
        limit = best_threshold(others, told)
        accuracies.append(((scores[i] >= limit) == same[i]).mean())
    return np.array(accuracies), verification(np.concatenate(scores), np.concatenate(same))


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """That by which most pairs are told rightly; in the middle between two scores."""
    false, true, limits = roc_curve(same, scores, drop_intermediate=False)
    right = true * same.sum() + (1 - false) * (~same).sum()
    best = int(np.argmax(right))
    if best + 1 == len(limits):
        return float(limits[best])
    return float((min(limits[best], scores.max() + 1) + limits[best + 1]) / 2)
