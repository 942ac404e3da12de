"""Notebook 20: the cosine map, targets of a way, the union of shots, one way among N."""

import torch

import fsslib as fss
from fsslib.teaching.exercises import Exercise


def places():
    generator = torch.Generator().manual_seed(0)
    for batch, ways, channels, height, width in ((1, 2, 2, 2, 2), (3, 1, 5, 4, 6), (2, 3, 8, 7, 3)):
        features = torch.randn(batch, channels, height, width, generator=generator)
        prototypes = torch.randn(batch, ways, channels, generator=generator)
        yield f"{batch} images of {height}x{width} places, {ways} ways", features, prototypes
    features, prototypes = features.clone(), prototypes.clone()
    features[0, :, 0, 0], prototypes[1, 0] = 0, 0
    yield "zero vectors", features, prototypes


@Exercise(
    places,
    "agrees with the library on 3 shapes, zero vectors too",
    "easy",
    10,
    hint="sum over channels of feature times prototype, over both lengths",
)
def cosine_maps(f, p):
    """(features [B, C, h, w], prototypes [B, N, C]) -> [B, N, h, w], a map for each way"""
    inner = torch.einsum("bchw,bnc->bnhw", f, p)
    of_features, of_prototypes = f.norm(dim=1)[:, None], p.norm(dim=2)[:, :, None, None]
    both, small = of_features * of_prototypes, 1e-8

    def cosines(p):
        return torch.stack([fss.cosine_similarity_map(f, way) for way in p.unbind(1)], 1)

    right = cosines(p)
    return {
        "right": right,
        "these are inner products; divide by both lengths.": inner,
        "the lengths of the features are missing in the denominator.": inner / of_prototypes.clamp(min=small),
        "the lengths of the prototypes are missing in the denominator.": inner / of_features.clamp(min=small),
        "these are divided by the squares of the lengths: a root is missing.": inner / both.square().clamp(min=small),
        "a zero vector has no direction, and 0 / 0 is NaN: keep the lengths above 0.": inner / both,
        "every image was compared with the first image's prototypes.": cosines(p[:1].expand_as(p)),
        "every way was compared with the first way's prototype.": cosines(p[:, :1].expand_as(p)),
        "the cosine lies between -1 and 1; do not move it into [0, 1].": (right + 1) / 2,
        "the sign is gone: what points away has the cosine -1.": right.abs(),
    }


def label_maps():
    generator = torch.Generator().manual_seed(0)
    for ways in (1, 2, 3):
        labels = torch.randint(0, ways + 1, (2, 6, 5), generator=generator)
        labels[torch.rand(2, 6, 5, generator=generator) < 0.2] = fss.VOID
        yield f"ways: {ways}", labels, ways


@Exercise(
    label_maps,
    "is right for 1 to 3 ways, and void stays void",
    "easy",
    10,
    hint="compare labels[:, None] with the number of each way; put 255 where void is",
)
def way_targets(labels, ways):
    """(labels [B, H, W], ways) -> [B, N, H, W], a map for each way, the ways on the second axis: 0, 1 and 255"""
    way, void = torch.arange(1, ways + 1)[:, None, None], (labels == fss.VOID)[:, None]
    here, first = labels[:, None] == way, labels[:, None] == way - 1
    others = torch.where(here, 1, torch.where(labels[:, None] == 0, 0, fss.VOID))
    return {
        "right": torch.where(void, fss.VOID, here),
        "void became background; whoever is unsure is not to be corrected: keep 255.": here,
        "void became foreground; labels > 0 holds for 255 too: keep 255.": here | void,
        "other ways are void here; for this way they are background, 0.": others,
        "the number of the way is still in it; the way's own pixels are 1.": torch.where(void, fss.VOID, here * way),
        "ways are numbered from 1; the first map is the background here.": torch.where(void, fss.VOID, first),
        "0 and 1 are exchanged: 1 is the way.": torch.where(void, fss.VOID, ~here),
    }


def answers():
    generator = torch.Generator().manual_seed(0)
    for shots in (1, 3, 5):
        logits = 3 * torch.randn(2, shots, 2, 8, 9, generator=generator)
        logits[:, :, 0] += 2.0
        yield f"shots: {shots}", logits


@Exercise(
    answers,
    "agrees with merge_shots for 1, 3 and 5 shots",
    "easy",
    5,
    hint="argmax over axis 2 decides, any over axis 1",
)
def union_of_shots(z):
    """(logits [B, K, 2, H, W]) -> [B, H, W], 1 where any shot says so: shots and {background, foreground} are gone"""
    says, softly = z.argmax(2), z.softmax(2).mean(1)
    return {
        "right": fss.merge_shots(says, rule="union"),
        "this is the mean of the shots' logits; decide per shot first, then merge.": z.mean(1).argmax(1),
        "this is the mean of the shots' probabilities; decide per shot first, then merge.": softly.argmax(1),
        "this is the majority; for the union one shot is enough.": fss.merge_shots(says, rule="majority"),
        "this is the intersection; for the union one shot is enough.": says.amin(1),
        "the largest logits of different shots were compared; each shot has its own background.": z.amax(1).argmax(1),
        "a logit above 0 decides nothing; compare it with that of the background.": (z[:, :, 1] > 0).any(1),
        "this is where any shot says background: channel 1 is the foreground.": (says == 0).any(1),
        "these are numbers of votes; for the union one shot is enough.": says.sum(1),
    }


@Exercise(
    lambda: [(f"ways: {ways}", ways) for ways in range(1, 9)],
    "is right for 1 to 8 ways",
    "medium",
    10,
    hint="solve p = ((1 - p) + (N - 1)) / N for p",
)
def winning_probability(ways):
    """(ways) -> the probability from which on one way wins when all others are at 0"""
    return {
        "right": ways / (ways + 1),
        "one half is right for one way only: with more ways the background is a mean in which the others say 1.": 0.5,
        "the believed way adds 1 - p to the background's sum too.": (ways - 1) / ways if ways > 1 else 0.5,
        "that is the background's share, 1 - p: solve p = ((1 - p) + (N - 1)) / N for p.": 1 / (ways + 1),
        "the sum is not divided by N: the background is a mean.": ways / 2,
    }
