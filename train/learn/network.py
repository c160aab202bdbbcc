"""The network itself: a Hugging Face encoder, masked mean pooling, a binary head and a threat-type head.

The only file of the room besides `trainer` that imports torch when it is loaded: a torch module cannot be defined
without it. Everything else imports this one from inside a function.
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crywolf.data import BadInput

from .model import META, WEIGHTS, load_weights, read_meta, verify

_DROPOUT_FIELDS = ("hidden_dropout_prob", "hidden_dropout", "mlp_dropout", "dropout")
_ATTENTION_DROPOUT_FIELDS = ("attention_probs_dropout_prob", "attention_dropout")


class ThreatClassifier(nn.Module):
    """Encoder, masked mean of its last hidden states, dropout, and two linear heads.

    `forward(input_ids, attention_mask)` gives (logits (b, 2) in the order of LABELS, threat logits (b, types)).
    """

    def __init__(self, encoder: nn.Module, *, n_threats: int, dropout: float) -> None:
        super().__init__()
        width = int(encoder.config.hidden_size)  # type: ignore[union-attr,arg-type]  # a HF config, untyped in nn.Module
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.binary_head = nn.Linear(width, 2)
        self.threat_head = nn.Linear(width, n_threats)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of both heads; see the class."""
        pooled = self.dropout(self.pooled(input_ids, attention_mask))
        return self.binary_head(pooled), self.threat_head(pooled)

    def pooled(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Masked mean of the last hidden states, (b, width): what the heads see, before dropout."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
        pooled: Tensor = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp_min(1e-6)
        return pooled


def pretrained_classifier(encoder: str, *, n_threats: int, dropout: float) -> ThreatClassifier:
    """A classifier on a pretrained encoder, its heads new (drawn from torch's global generator).

    Args:
        encoder: A folder or a hub id, as `resolve_encoder` gives it. A model folder that `fit` wrote gives that model,
            its heads too, to be trained on.
        n_threats: Width of the threat-type head.
        dropout: Of the pooled vector and the encoder's hidden layers.
    """
    from transformers import AutoConfig, AutoModel

    if (Path(encoder) / META).is_file():
        return _trained_classifier(Path(encoder), n_threats=n_threats, dropout=dropout)
    try:
        config = AutoConfig.from_pretrained(encoder)
        _set_dropout(config, dropout)
        # Safetensors only: a pickled checkpoint runs whatever its author put into it.
        model = AutoModel.from_pretrained(
            encoder, config=config, dtype=torch.float32, use_safetensors=True, attn_implementation=_attention()
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(
            f"encoder {encoder}: cannot be loaded ({_first_line(error)}); "
            "it must be a folder or hub id of an encoder with config.json and model.safetensors"
        ) from error
    return ThreatClassifier(_without_pooler(model), n_threats=n_threats, dropout=dropout)


def _trained_classifier(folder: Path, *, n_threats: int, dropout: float) -> ThreatClassifier:
    """The classifier of a model folder, to be trained further; CorruptPackage if it is not what was saved."""
    from transformers import AutoConfig
    from transformers import AutoModel as Untyped

    auto_model: Any = Untyped
    verify(folder, read_meta(folder))
    config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    _set_dropout(config, dropout)
    encoder = auto_model.from_config(config, dtype=torch.float32, attn_implementation=_attention())
    network = ThreatClassifier(_without_pooler(encoder), n_threats=n_threats, dropout=dropout)
    load_weights(network, folder / WEIGHTS)
    return network


def _attention() -> str | None:
    # On processors torch's fused attention is slow backwards in bfloat16: over a quarter of a step.
    return None if torch.cuda.is_available() else "eager"


def empty_classifier(config_dir: Path, *, n_threats: int, dropout: float) -> ThreatClassifier:
    """A classifier of the shape that `config_dir/config.json` describes, its weights yet to be loaded; no network."""
    from transformers import AutoConfig
    from transformers import AutoModel as Untyped

    auto_model: Any = Untyped
    config = AutoConfig.from_pretrained(str(config_dir), local_files_only=True)
    # The first values are drawn and thrown away: the caller's generator shall not notice.
    with torch.random.fork_rng(devices=[]):
        model = auto_model.from_config(config, dtype=torch.float32)
        return ThreatClassifier(_without_pooler(model), n_threats=n_threats, dropout=dropout)


def freeze(model: ThreatClassifier, *, embeddings: bool, layers: int) -> None:
    """Stop gradients for the encoder's embeddings and its lowest layers.

    Raises:
        BadInput: If the encoder has fewer layers, or hides them where they cannot be found.
    """
    if embeddings:
        for parameter in _embedding_block(model.encoder).parameters():
            parameter.requires_grad_(False)
    if not layers:
        return
    stack = _layer_stack(model.encoder)
    if layers > len(stack):
        raise BadInput(f"recipe: freeze_layers is {layers}, but the encoder has {len(stack)} layers")
    for layer in stack[:layers]:
        for parameter in layer.parameters():
            parameter.requires_grad_(False)


def max_positions(encoder: nn.Module) -> int | None:
    """The longest input that the encoder's position embeddings allow, or None if it knows no limit."""
    config: Any = encoder.config
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return None
    # RoBERTa and its kin number positions from pad_token_id + 1.
    offset = int(config.pad_token_id or 0) + 1 if config.model_type in _OFFSET_POSITIONS else 0
    return limit - offset


_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "xlm-roberta-xl")


def _set_dropout(config: Any, dropout: float) -> None:
    fields = _DROPOUT_FIELDS if dropout else (*_DROPOUT_FIELDS, *_ATTENTION_DROPOUT_FIELDS)
    for name in fields:
        if isinstance(getattr(config, name, None), float | int):
            setattr(config, name, dropout)


def _without_pooler(encoder: nn.Module) -> nn.Module:
    """Drop the unused head that BERT and its kin put on the first token: it would be saved, exported and never run."""
    if "add_pooling_layer" in inspect.signature(type(encoder).__init__).parameters:
        encoder.pooler = None  # type: ignore[assignment]  # torch's stub knows no None here, nn.Module does
    return encoder


def _embedding_block(encoder: nn.Module) -> nn.Module:
    """The module that holds token (and position) embeddings: `embeddings` in most encoders, else the token table."""
    block = getattr(encoder, "embeddings", None)
    if isinstance(block, nn.Module):
        return block
    table: nn.Module = encoder.get_input_embeddings()  # type: ignore[operator]  # a HF model's method
    return table


def _layer_stack(encoder: nn.Module) -> nn.ModuleList:
    depth = getattr(encoder.config, "num_hidden_layers", None)
    for module in encoder.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise BadInput(f"recipe: freeze_layers cannot find the layers of a {type(encoder).__name__}; set it to 0")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
