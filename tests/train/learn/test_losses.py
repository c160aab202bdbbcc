"""The loss: weights that act as copies, focal as published, the threat head's own rows."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st

from crywolf.train.learn.losses import (
    IGNORE,
    distillation_losses,
    focal_loss,
    mean_training_weight,
    ranking_loss,
    supervised_contrastive_loss,
    threat_loss,
)

EVEN = torch.tensor([1.0, 1.0])


def _batch(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 2, (n,), generator=generator)
    return logits, labels


def test_without_weights_and_gamma_it_is_cross_entropy() -> None:
    logits, labels = _batch(64)
    assert focal_loss(logits, labels, class_weights=EVEN).item() == pytest.approx(
        functional.cross_entropy(logits, labels).item(), rel=1e-6
    )


def test_class_weights_agree_with_torch() -> None:
    logits, labels = _batch(64)
    weights = torch.tensor([1.5, 1.0])
    expected = functional.cross_entropy(logits.float(), labels, weight=weights)
    assert focal_loss(logits, labels, class_weights=weights).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_doubling_the_benign_weight_is_duplicating_the_benign_rows(gamma: float) -> None:
    logits, labels = _batch(40)
    logits.requires_grad_()
    twice = torch.cat([logits, logits[labels == 0]])
    twice_labels = torch.cat([labels, labels[labels == 0]])
    doubled = focal_loss(logits, labels, class_weights=torch.tensor([2.0, 1.0]), gamma=gamma)
    duplicated = focal_loss(twice, twice_labels, class_weights=EVEN, gamma=gamma)
    assert doubled.item() == pytest.approx(duplicated.item(), rel=1e-6)
    (left,) = torch.autograd.grad(doubled, logits, retain_graph=True)
    (right,) = torch.autograd.grad(duplicated, logits)
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-8)


@settings(max_examples=30, deadline=None)
@given(copies=st.lists(st.integers(1, 4), min_size=3, max_size=12), seed=st.integers(0, 99))
def test_a_row_weight_is_so_many_copies_of_the_row(copies: list[int], seed: int) -> None:
    logits, labels = _batch(len(copies), seed)
    counts = torch.tensor(copies)
    classes = torch.tensor([1.5, 1.0])
    weighted = focal_loss(logits, labels, class_weights=classes, row_weights=counts.float(), gamma=1.0)
    copied = focal_loss(
        logits.repeat_interleave(counts, dim=0), labels.repeat_interleave(counts), class_weights=classes, gamma=1.0
    )
    assert weighted.item() == pytest.approx(copied.item(), rel=1e-5)


def test_a_batch_of_one_class_still_feels_its_weight() -> None:
    logits, labels = _batch(16)
    labels[:] = 0
    rows = torch.ones(16)
    all_labels = torch.tensor([0] * 16 + [1] * 16)
    light, heavy = EVEN, torch.tensor([3.0, 1.0])

    def loss(weights: torch.Tensor) -> float:
        mean = mean_training_weight(all_labels, torch.ones(32), weights)
        return focal_loss(logits, labels, class_weights=weights, row_weights=rows, mean_weight=mean).item()

    assert loss(heavy) / loss(light) == pytest.approx(3 / 2)  # 3 against the mean weight of 2


def test_batches_add_up_to_the_whole_set() -> None:
    logits, labels = _batch(30)
    weights = torch.tensor([1.5, 1.0])
    mean = mean_training_weight(labels, torch.ones(30), weights)
    whole = focal_loss(logits, labels, class_weights=weights, gamma=2.0)
    order = labels.argsort()  # batches of one class, as grouping by length can make them
    parts = [
        focal_loss(logits[rows], labels[rows], class_weights=weights, gamma=2.0, mean_weight=mean)
        for rows in order.split(10)
    ]
    assert sum(part.item() for part in parts) / 3 == pytest.approx(whole.item(), rel=1e-5)


def test_focal_follows_the_paper() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 0])
    p = [1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))]
    expected = np.mean([-((1 - q) ** 2) * math.log(q) for q in p])
    assert focal_loss(logits, labels, class_weights=EVEN, gamma=2.0).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_gradients_stay_finite_on_rows_that_are_perfectly_sure(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    focal_loss(logits, torch.tensor([0, 0]), class_weights=EVEN, gamma=gamma).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_threat_loss_sees_known_rows_only() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    targets = torch.tensor([1, IGNORE, 2, IGNORE])
    loss = threat_loss(logits, targets)
    expected = functional.cross_entropy(logits[[0, 2]], targets[[0, 2]])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[[1, 3]].abs().sum() == 0


def test_threat_loss_without_known_rows_is_zero_and_differentiable() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    loss = threat_loss(logits, torch.tensor([IGNORE, IGNORE]))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_smoothing_gives_the_other_label_its_share() -> None:
    logits, labels = torch.tensor([[2.0, -1.0], [0.0, 1.5]]), torch.tensor([0, 1])
    weights = torch.ones(2)
    smooth = torch.nn.functional.cross_entropy(logits, torch.tensor([[0.9, 0.1], [0.1, 0.9]]))
    assert focal_loss(logits, labels, class_weights=weights, smoothing=0.1).item() == pytest.approx(smooth.item())


def _unit(n: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, 5))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _contrastive_by_hand(unit: np.ndarray, labels: list[int], temperature: float) -> float:
    """Khosla et al. 2020, equation 2, read off term by term."""
    found = []
    for i, label in enumerate(labels):
        others = [a for a in range(len(labels)) if a != i]
        positives = [p for p in others if labels[p] == label]
        whole = sum(math.exp(unit[i] @ unit[a] / temperature) for a in others)
        if positives:
            shares = [math.exp(unit[i] @ unit[p] / temperature) / whole for p in positives]
            found.append(-sum(map(math.log, shares)) / len(positives))
    return sum(found) / len(found) if found else 0.0


@settings(max_examples=50, deadline=None)
@given(
    labels=st.lists(st.integers(0, 2), min_size=2, max_size=9),
    temperature=st.floats(0.05, 2.0),
    seed=st.integers(0, 999),
)
def test_the_contrastive_loss_is_the_papers(labels: list[int], temperature: float, seed: int) -> None:
    unit = _unit(len(labels), seed)
    longer = torch.from_numpy(unit * np.random.default_rng(seed).uniform(0.5, 9, (len(labels), 1)))
    loss = supervised_contrastive_loss(longer, torch.tensor(labels), temperature=temperature)
    assert loss.item() == pytest.approx(_contrastive_by_hand(unit, labels, temperature), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("labels", [[0, 1, 1, 0], [0, 1, 2, 3], [0]])
def test_the_contrastive_loss_has_finite_gradients_whoever_lacks_a_partner(labels: list[int]) -> None:
    vectors = torch.from_numpy(_unit(len(labels), 1)).requires_grad_()
    loss = supervised_contrastive_loss(vectors, torch.tensor(labels), temperature=0.1)
    (gradient,) = torch.autograd.grad(loss, vectors)
    assert torch.isfinite(gradient).all()
    assert (gradient.abs().sum() > 0) == (len(set(labels)) < len(labels))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 8), temperature=st.floats(0.05, 2.0), seed=st.integers(0, 999))
def test_the_ranking_loss_is_the_papers(n: int, temperature: float, seed: int) -> None:
    rows, others = _unit(n, seed), _unit(n, seed + 1)
    likeness = np.exp(rows @ others.T / temperature)
    expected = -np.mean([math.log(likeness[i, i] / likeness[i].sum()) for i in range(n)])
    loss = ranking_loss(torch.from_numpy(3 * rows), torch.from_numpy(others), temperature=temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_distillation_has_the_gradient_of_torchs_divergence_times_the_squared_temperature(temperature: float) -> None:
    logits, _ = _batch(20)
    logits.requires_grad_()
    margins = torch.linspace(-4, 4, 20)
    ours = distillation_losses(logits, margins, temperature=temperature).sum()
    share = torch.sigmoid(margins / temperature)
    student = functional.log_softmax(logits.float() / temperature, dim=-1)
    divergence = functional.kl_div(student, torch.stack([1 - share, share], dim=1), reduction="sum")
    (left,) = torch.autograd.grad(ours, logits)
    (right,) = torch.autograd.grad(divergence * temperature**2, logits)
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-6)


def test_teachers_as_sure_as_labels_are_the_labels() -> None:
    logits, labels = _batch(64)
    weights = torch.tensor([1.5, 1.0])
    sure = torch.where(labels == 1, 80.0, -80.0)
    taught = focal_loss(logits, labels, class_weights=weights, teacher_margins=sure, distill=1.0)
    assert taught.item() == pytest.approx(focal_loss(logits, labels, class_weights=weights).item(), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_distill_is_the_teachers_share_and_rows_without_a_teacher_keep_their_label(gamma: float) -> None:
    logits, labels = _batch(40)
    logits.requires_grad_()
    margins = torch.linspace(-3, 3, 40)
    margins[::3] = math.nan
    options = {"class_weights": torch.tensor([2.0, 1.0]), "gamma": gamma, "smoothing": 0.1, "mean_weight": 1.0}
    found = focal_loss(logits, labels, teacher_margins=margins, distill=0.7, temperature=2.0, **options)
    weights = torch.tensor([2.0, 1.0])[labels]
    expected = torch.tensor(0.0)
    for row in range(40):
        one = slice(row, row + 1)
        hard = focal_loss(logits[one], labels[one], **options)
        soft = weights[row] * distillation_losses(logits[one], margins[one], temperature=2.0).sum()
        expected = expected + (hard if math.isnan(margins[row]) else 0.3 * hard + 0.7 * soft) / 40
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(found, logits)
    assert gradient.isfinite().all()
