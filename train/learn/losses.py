"""The training loss: focal cross-entropy with weights, distillation, the threat-type term, and a warm-up's two losses.

Takes logits or vectors and targets as torch tensors and gives one scalar. A weight of w on a row does exactly what w
copies of that row would do; this is what a person means who writes `BENIGN: 1.5`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = -100
"""Target of a row that the threat-type head learns nothing from."""


def focal_loss(
    logits: "Tensor",
    labels: "Tensor",
    *,
    class_weights: "Tensor",
    row_weights: "Tensor | None" = None,
    gamma: float = 0.0,
    smoothing: float = 0.0,
    mean_weight: float | None = None,
    teacher_margins: "Tensor | None" = None,
    distill: float = 0.0,
    temperature: float = 1.0,
) -> "Tensor":
    """Weighted focal loss of a batch: sum of w * (1 - p)^gamma * -log p over the rows, divided by the weights.

    Args:
        logits: (n, 2).
        labels: (n,) indices into LABELS.
        class_weights: (2,) weight of each label.
        row_weights: (n,) further weight of each row, 1 if None.
        gamma: 0 gives weighted cross-entropy.
        smoothing: Share of the target that the other label gets.
        mean_weight: The mean row weight over the whole training set. The divisor is then n * mean_weight, the same for
            every batch. If None, the divisor is the batch's own sum of weights; in a batch of one class that cancels
            the class weight, and batches grouped by length are often nearly that, so training passes the mean.
        teacher_margins: (n,) log odds that teachers give each row; NaN leaves a row to its label.
        distill: Share of a row's loss that is `distillation_losses`, with the row's weights and without gamma and
            smoothing: the teachers say themselves how sure a row is.
        temperature: Of that share.
    """
    import torch
    import torch.nn.functional as functional

    both = functional.log_softmax(logits.float(), dim=-1)
    log_p = both.gather(1, labels.unsqueeze(1)).squeeze(1)
    weights = class_weights.to(log_p)[labels]
    if row_weights is not None:
        weights = weights * row_weights.to(log_p)
    surprise = -log_p
    if smoothing:
        surprise = (1 - smoothing) * surprise - smoothing * both.gather(1, 1 - labels.unsqueeze(1)).squeeze(1)
    losses = surprise * weights
    if gamma:
        # Clamped: at p = 1 the derivative of (1 - p)^gamma is infinite for gamma < 1.
        losses = losses * (1 - log_p.exp()).clamp_min(1e-7) ** gamma
    if teacher_margins is not None:
        share = distill * (~teacher_margins.isnan()).to(losses)
        soft = distillation_losses(logits, teacher_margins.nan_to_num(), temperature=temperature)
        losses = (1 - share) * losses + share * weights * soft
    divisor = weights.sum() if mean_weight is None else torch.full_like(log_p, mean_weight).sum()
    return losses.sum() / divisor.clamp_min(1e-12)


def distillation_losses(logits: "Tensor", teacher_margins: "Tensor", *, temperature: float) -> "Tensor":
    """Cross-entropy of each row against the teachers' P(MALICIOUS) at a temperature, times its square: (n,).

    The gradient of the bare cross-entropy falls with the square of the temperature; the factor keeps the shares of the
    two losses as they are whatever it is (Hinton et al. 2015, section 2).

    Args:
        logits: (n, 2).
        teacher_margins: (n,) log odds of MALICIOUS, finite.
        temperature: Above 0; the higher, the more the teachers' doubts count beside their verdicts.
    """
    import torch
    import torch.nn.functional as functional

    both = functional.log_softmax(logits.float() / temperature, dim=-1)
    malicious = torch.sigmoid(teacher_margins.to(both) / temperature)
    return -(temperature**2) * (malicious * both[:, 1] + (1 - malicious) * both[:, 0])


def threat_loss(logits: "Tensor", targets: "Tensor", *, row_weights: "Tensor | None" = None) -> "Tensor":
    """Cross-entropy of the threat-type head over the rows whose type is known; 0 (with a gradient) if none is.

    Args:
        logits: (n, number of threat types).
        targets: (n,) indices of threat types, IGNORE where the row is benign or its type unknown.
        row_weights: (n,) weight of each row, 1 if None.
    """
    import torch.nn.functional as functional

    known = targets != IGNORE
    losses = functional.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="none")
    weights = known.to(losses) if row_weights is None else known.to(losses) * row_weights.to(losses)
    return (losses * weights).sum() / weights.sum().clamp_min(1e-12)


def mean_training_weight(labels: "Tensor", row_weights: "Tensor", class_weights: "Tensor") -> float:
    """Mean of class weight * row weight over a training set: the `mean_weight` of `focal_loss`."""
    return float((class_weights[labels] * row_weights).mean())


def supervised_contrastive_loss(vectors: "Tensor", labels: "Tensor", *, temperature: float) -> "Tensor":
    """Supervised contrastive loss of a batch, the form with the sum outside the logarithm (Khosla et al. 2020, eq. 2).

    For each row the mean over the other rows of its label of -log of their share among all other rows, the shares going
    by exp(cosine / temperature); then the mean over the rows that have another of their label, 0 (with a gradient) if
    none has.

    Args:
        vectors: (n, d), of any length: they are normalized here.
        labels: (n,).
        temperature: Above 0; the lower, the more the nearest rows of the other label count.
    """
    import torch
    import torch.nn.functional as functional

    unit = functional.normalize(vectors.float(), dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    cosines = (unit @ unit.T / temperature).masked_fill(itself, float("-inf"))
    # What is -inf on the diagonal would turn 0 * inf into NaN below.
    log_shares = functional.log_softmax(cosines, dim=-1).masked_fill(itself, 0.0)
    positives = (labels.unsqueeze(0) == labels.unsqueeze(1)) & ~itself
    counts = positives.sum(dim=1)
    losses = -(log_shares * positives).sum(dim=1) / counts.clamp_min(1)
    return losses.sum() / (counts > 0).sum().clamp_min(1)


def ranking_loss(vectors: "Tensor", partners: "Tensor", *, temperature: float) -> "Tensor":
    """Multiple negatives ranking loss: each row must find its partner among the partners of the whole batch.

    Henderson et al. 2017 with cosines; with two dropout passes as rows and partners it is the loss of unsupervised
    SimCSE (Gao et al. 2021, eq. 4).

    Args:
        vectors: (n, d), of any length: they are normalized here.
        partners: (n, d), in the same order.
        temperature: Above 0.
    """
    import torch
    import torch.nn.functional as functional

    rows, others = (functional.normalize(part.float(), dim=-1) for part in (vectors, partners))
    return functional.cross_entropy(rows @ others.T / temperature, torch.arange(len(rows), device=rows.device))
