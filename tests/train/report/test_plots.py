"""Figures tell what they are for, and only that."""

from crywolf.train.report.plots import training_curves


def test_training_curves_leave_out_what_counts_work() -> None:
    history = [
        {"epoch": 1, "step": 200, "seconds": 31.5, "loss": 0.4, "validation_loss": 0.3, "f1": 0.8, "recall": None},
        {"epoch": 2, "step": 400, "seconds": 30.5, "loss": 0.2, "validation_loss": 0.2, "f1": 0.9, "recall": 0.7},
    ]
    drawn = training_curves(history, best=2)
    assert "Lines over 2 epochs: f1, loss, recall, validation_loss." in drawn
    assert "seconds" not in drawn
