"""A tiny encoder and rows that it can learn, so that real trainings take a second."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from crywolf.data import make_corpus
from crywolf.train import Recipe

COMMON = ("please", "can", "you", "how", "do", "i", "the", "a", "my", "in", "with", "this", "of", "to", "explain")
CALM = ("python", "list", "sort", "recipe", "history", "kill", "process", "garden", "letter", "budget")
HOSTILE = ("ignore", "previous", "instructions", "reveal", "system", "prompt", "jailbreak", "secrets", "bypass")


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers and 32 dimensions with a word-piece vocabulary, saved as any encoder is."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    specials = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [*specials, *letters, *(f"##{letter}" for letter in letters), *COMMON, *CALM, *HOSTILE]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    # As MiniLM ships: with padding to a fixed length in the file, which training and scoring must not follow.
    tokenizer.enable_padding(length=64)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., pl.DataFrame]:
    """Contract rows: benign ones of calm words, malicious ones with hostile words and a threat type."""

    def make(n: int, seed: int, malicious: float = 0.4) -> pl.DataFrame:
        rng = np.random.default_rng(seed)
        rows = []
        for index in range(n):
            hostile = rng.random() < malicious
            words = [*rng.choice(COMMON, int(rng.integers(2, 12))), *rng.choice(HOSTILE if hostile else CALM, 4)]
            rows.append(
                {
                    "text": " ".join(rng.permutation(words)) + f" {'xyz'[index % 3] * (seed % 7 + 1)}",
                    "label": "MALICIOUS" if hostile else "BENIGN",
                    "threat_type": ("context_manipulation", "unknown")[index % 2] if hostile else None,
                    "source": "original",
                }
            )
        return make_corpus(rows).unique("id", keep="first", maintain_order=True)

    return make


@pytest.fixture(scope="session")
def tiny_recipe() -> Recipe:
    """Three epochs at a learning rate that a tiny encoder needs."""
    return Recipe(name="tiny", epochs=3, batch_size=8, learning_rate=3e-3, warmup_steps=2, max_length=32, patience=0)
