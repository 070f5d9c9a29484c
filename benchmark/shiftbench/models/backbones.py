"""Pretrained vision-language models, by name: what a suite's ``backbones`` can list.

- ``miniature``: the backbone that ships with the miniature world; or the name under which another
  package registers a directory, or a function that returns one (``shiftbench.backbones``);
- ``<pretrained>/<model>``: any pair of ``open_clip.list_pretrained()``, such as
  ``openai/ViT-B-16``; downloaded and cached by open_clip;
- ``hf-hub:org/name``, perhaps ``@revision``: a repository of the Hugging Face Hub, which
  ``shiftbench backbone fetch`` downloads;
- a directory, also as ``local-dir:…``: of open_clip (``open_clip_config.json`` and weights, and
  ``vocabulary.json`` where the tokenizer is the miniature's), or a CLIP or SigLIP of transformers;
- a file of weights, such as a checkpoint of open_clip's training, with the name of its architecture
  where no file beside it says: ``./epoch_3.pt/ViT-B-16``.

Importing this module and ``backbone_identity`` need neither torch nor open_clip.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shiftbench.core.errors import InputError, one_line
from shiftbench.data.preprocessing import Preprocessing
from shiftbench.models import hub
from shiftbench.models.local import Described, build, describe, identity_of
from shiftbench.models.names import CONFIG, HUB, TRANSFORMERS_CONFIG, Published, meaning
from shiftbench.models.published import (
    QUICK_GELU,
    Pretrained,
    find_pretrained,
    model_config,
    sources_in_table,
)
from shiftbench.models.registry import BACKBONES

if TYPE_CHECKING:
    from open_clip import CLIP
    from torch import Tensor, nn

VOCABULARY = "vocabulary.json"
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "spiece.model")
HF_SETTINGS = frozenset({"clean", "language", "strip_sep_token"})
SIMPLE_SETTINGS = frozenset({"additional_special_tokens", "clean", "reduction_mask"})
"""What a configuration may say of its tokenizer: the rest could name files, or code to run."""


@dataclass(frozen=True)
class Backbone:
    """A pretrained model, ready to use.

    Attributes:
        name: as the suite spells it.
        identity: what run identities are made of; see ``backbone_identity``.
        clip: the open_clip model, fp32, in eval mode, on the CPU.
        config: open_clip's ``model_cfg``.
        tokenizer: texts to token ids, int64 (n, context length).
        preprocessing: how it wants its images.
    """

    name: str
    identity: str
    clip: CLIP
    config: Mapping[str, Any]
    tokenizer: Callable[[Sequence[str]], Tensor]
    preprocessing: Preprocessing


def backbone_identity(name: str) -> str:
    """The part of a run's identity that stands for the backbone called ``name``.

    For open_clip's published weights the pair of names, in one spelling; for files on this machine
    a digest of their content, wherever they lie; for a repository of the Hub its commit.

    Raises:
        InputError: the name has none of the accepted forms, or a file is missing.
    """
    place = meaning(name)
    if isinstance(place, Published):
        return f"{place.tag}/{place.model.removesuffix(QUICK_GELU)}"
    found = identity_of(place)
    return found.replace("local@", "miniature@") if name == "miniature" else found


def load_backbone(name: str) -> Backbone:
    """The model, tokenizer and preprocessing called ``name``.

    Raises:
        InputError: unknown name, activation mismatch, failed download, or files that are missing,
            damaged or do not fit each other.
    """
    place = meaning(name)
    try:
        if isinstance(place, Published):
            return _load_published(name, find_pretrained(place.tag, place.model, name))
        described = describe(place)
        clip = build(described)
        return _backbone(name, clip, described.model, _local_tokenizer(described))
    except InputError as error:
        raise _named(name, error) from error


def check_backbone(name: str) -> None:
    """See that ``name`` has an accepted form and its files are here, or can be downloaded.

    Downloads nothing, and builds no more than a tower without weights.

    Raises:
        InputError: unknown name, activation mismatch, files that are missing or damaged or cannot
            be downloaded, or an image size that the image tower does not take.
    """
    place = meaning(name)
    try:
        if isinstance(place, Published):
            known = sources_in_table().get((place.tag, place.model))
            _require(known or find_pretrained(place.tag, place.model, name).source, name)
            return
        from shiftbench.models.safetensors import check_weights

        for file in describe(place).weights:
            check_weights(file)
        if not is_shipped(name):
            from shiftbench.models.towers import check_image_size

            check_image_size(image_tower(name))
    except InputError as error:
        raise _named(name, error) from error


def fetch_backbone(name: str) -> None:
    """Download what is not on this machine yet.

    Raises:
        InputError: it cannot be downloaded, or there is no such backbone.
    """
    if name.startswith(HUB):
        _fetch_repository(name)
    place = meaning(name)
    if isinstance(place, Published):
        try:
            _weights_of(find_pretrained(place.tag, place.model, name), name)
        except InputError as error:
            raise _named(name, error) from error


def _fetch_repository(name: str) -> None:
    repo = name.removeprefix(HUB)
    configs = hub.Source(hub.split_revision(repo)[0], (CONFIG, TRANSFORMERS_CONFIG))
    if (reason := hub.unreachable(configs)) is not None:
        raise InputError(f"backbone {name!r} cannot be downloaded ({reason})")
    hub.fetch_snapshot(repo)


def is_plain_vit(name: str) -> bool:
    """True for a pair of open_clip's table whose image tower is open_clip's own ViT.

    Its configuration is read, and nothing imported.
    """
    place = meaning(name)
    if not isinstance(place, Published) or (place.tag, place.model) not in sources_in_table():
        return False
    vision = (model_config(place.model) or {}).get("vision_cfg", {})
    return isinstance(vision.get("layers"), int) and "timm_model_name" not in vision


def is_shipped(name: str) -> bool:
    """True for a backbone that is part of this package."""
    found = BACKBONES.entries().get(name)
    return found is not None and found.builtin


@functools.cache
def image_tower(name: str) -> nn.Module:
    """The image tower of a backbone without its weights, on the meta device; shared.

    Raises:
        InputError: unknown name, or a configuration that cannot be read or makes no tower.
    """
    from shiftbench.models.towers import build_tower

    place = meaning(name)
    try:
        if isinstance(place, Published):
            config = _config_of(find_pretrained(place.tag, place.model, name))
        else:
            config = describe(place).model
    except InputError as error:
        raise _named(name, error) from error
    return build_tower(config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False))


def _config_of(entry: Pretrained) -> Mapping[str, Any]:
    """The ``model_cfg`` of an entry of open_clip's table, its activation that of the weights."""
    import open_clip

    config: dict[str, Any] = open_clip.get_model_config(entry.model)
    return {**config, "quick_gelu": True} if entry.quick_gelu else config


def _load_published(name: str, entry: Pretrained) -> Backbone:
    import open_clip

    file = _weights_of(entry, name)
    try:
        clip = open_clip.create_model(
            entry.model,
            pretrained=str(file),
            precision="fp32",
            force_quick_gelu=entry.quick_gelu,
            force_preprocess_cfg=dict(entry.preprocessing),
            require_pretrained=True,
            weights_only=True,
        )
        tokenizer = open_clip.get_tokenizer(entry.model)
    # The Hub client, urllib and transformers share no base class for "could not be fetched".
    except Exception as error:
        raise InputError(f"could not be loaded ({one_line(error)}); {_offline(name)}") from error
    return _backbone(name, clip, _config_of(entry), tokenizer)


def _weights_of(entry: Pretrained, name: str) -> Path:
    """The file of an entry's weights, which is downloaded where it is not here yet."""
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    if (file := hub.cached(entry.source)) is not None:
        return file
    config = get_pretrained_cfg(entry.model, entry.tag)
    if "file" not in config:
        _require(entry.source, name)
    try:
        return Path(download_pretrained(config))
    # As above.
    except Exception as error:
        raise InputError(
            f"could not be downloaded ({one_line(error)}); {_offline(name)}"
        ) from error


def _require(source: hub.Source, name: str) -> None:
    """Refuse a source that is neither in the cache nor can be reached now."""
    if hub.cached(source) is None and (reason := hub.unreachable(source)) is not None:
        raise InputError(
            f"{source} is not on this machine and cannot be reached ({reason}); {_offline(name)}"
        )


def _offline(name: str) -> str:
    """What to do without a network."""
    return (
        f"where there is a network, shiftbench backbone fetch {name} puts it into the Hugging Face "
        "cache: copy that, and set HF_HOME to it and HF_HUB_OFFLINE=1"
    )


def _local_tokenizer(described: Described) -> Callable[[Sequence[str]], Tensor]:
    """The miniature's tokenizer where there is a vocabulary, else the one that the model says.

    Raises:
        InputError: it cannot be loaded, or has more tokens than the text tower.
    """
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer

    from shiftbench.data.miniature.tokenizer import CompactTokenizer

    text, folder = described.model["text_cfg"], described.folder
    length = text.get("context_length", DEFAULT_CONTEXT_LENGTH)
    own = folder is not None and any((folder / file).is_file() for file in TOKENIZERS)
    from_hub = bool(text.get("hf_tokenizer_name"))
    settings = _tokenizer_settings(described, HF_SETTINGS if from_hub else SIMPLE_SETTINGS)
    try:
        if folder is not None and (folder / VOCABULARY).is_file():
            tokenizer: Any = CompactTokenizer.load(folder)
        elif from_hub:
            source = str(folder) if own else text["hf_tokenizer_name"]
            mode = text.get("tokenizer_mode")
            # Said, because transformers would ask whoever sits there whether to run its code.
            tokenizer = HFTokenizer(
                source, length, tokenizer_mode=mode, trust_remote_code=False, **settings
            )
        else:
            tokenizer = SimpleTokenizer(context_length=length, **settings)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        where = folder or described.origin
        raise InputError(f"{where}: cannot load its tokenizer: {one_line(error)}") from error
    tokens = getattr(tokenizer, "vocab_size", None)
    rows = text.get("vocab_size", 49408)
    if tokens is not None and tokens > rows and "hf_model_name" not in text:
        raise InputError(
            f"{folder}: the tokenizer has {tokens:,} tokens but the text tower {rows:,}; "
            f"add the {VOCABULARY} it was trained with"
        )
    return tokenizer  # type: ignore[no-any-return]


def _tokenizer_settings(described: Described, accepted: frozenset[str]) -> Mapping[str, Any]:
    """``tokenizer_kwargs`` of a configuration, which anybody may have written.

    Raises:
        InputError: there are others than those that are accepted.
    """
    settings = described.model["text_cfg"].get("tokenizer_kwargs") or {}
    odd = sorted(set(settings) - accepted)
    if odd:
        raise InputError(
            f"{described.origin}: tokenizer_kwargs: {odd[0]!r} is not accepted, only "
            f"{', '.join(sorted(accepted))}"
        )
    return dict(settings)


def _backbone(
    name: str,
    clip: CLIP,
    config: Mapping[str, Any],
    tokenizer: Callable[[Sequence[str]], Tensor],
) -> Backbone:
    import open_clip

    if isinstance(clip, open_clip.CoCa):
        raise InputError("CoCa models are not supported; any CLIP or SigLIP model is")
    for key, tensor in clip.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"its weights have NaN or infinite values in {key!r}")
    where = f"backbone {name!r}"
    preprocessing = Preprocessing.from_open_clip(clip.visual.preprocess_cfg, where)
    model = clip.float().eval()
    return Backbone(name, backbone_identity(name), model, config, tokenizer, preprocessing)


def _named(name: str, error: InputError) -> InputError:
    """The error, which says of which backbone it is."""
    text = str(error)
    return error if f"backbone {name!r}" in text else InputError(f"backbone {name!r}: {text}")
