"""Tokenizers of a few words, as transformers 5 and as transformers 4 make them.

Version 4 is given the rust tokenizer that version 5 builds from the same vocabulary.
"""

from __future__ import annotations

import json
import string
from typing import Any

import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from eddy_bench.scoring.extractors import ASSETS

VERSION_4 = transformers.__version__.startswith("4.")
WORDS = (
    "a an the of and on in with photo picture red blue green black white "
    "dress coat shirt bag boot sandal sneaker trousers"
)
# What the pipelines put before a prompt, in few tokens: qwen-image drops its first 34, and a long
# rest would drown the prompt.
TEMPLATE = (
    "system user assistant Describe the image by detailing the color , shape size texture "
    "quantity text spatial relationships of objects and background : You are an assistant "
    "designed to generate superior images with degree image-text alignment based "
    "textual prompts or <Prompt Start>"
)
CHARACTERS = string.digits + string.ascii_letters + string.punctuation
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for part in m.content %}"
    "{{ part.text }}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def clip_tokenizer(length: int = 16) -> Any:
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(ASSETS / "fmnist-clip")
    tokenizer.model_max_length = length
    return tokenizer


def t5_tokenizer() -> Any:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(f"▁{word}", -3.0) for word in WORDS.split() if len(word) > 1] + [
        (character, -6.0) for character in CHARACTERS
    ]
    if not VERSION_4:
        return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)
    words = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    built = tokenizers.Tokenizer(models.Unigram(pieces, unk_id=2))
    built.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
    built.decoder = decoders.Metaspace(prepend_scheme="always", split=True)
    built.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return transformers.T5TokenizerFast(tokenizer_object=built, extra_ids=0, model_max_length=512)


def _bpe(specials: list[str], alphabet: list[str], split: Any) -> dict[str, Any]:
    """The vocabulary and merges of a byte-pair encoding trained on `WORDS` and `TEMPLATE`."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(
        [f"{word} {word}" for word in f"{WORDS} {TEMPLATE}".split()] * 2, trainer
    )
    model = json.loads(tokenizer.to_str())["model"]
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


def gemma_tokenizer() -> Any:
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    bpe = _bpe(specials, ["▁", *CHARACTERS], pre_tokenizers.Metaspace(prepend_scheme="never"))
    if not VERSION_4:
        return transformers.GemmaTokenizer(**bpe)
    built = tokenizers.Tokenizer(
        models.BPE(**bpe, fuse_unk=True, unk_token="<unk>", byte_fallback=True)
    )
    built.normalizer = normalizers.Replace(" ", "▁")
    built.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return transformers.GemmaTokenizerFast(tokenizer_object=built)


def qwen_tokenizer(*extra: str) -> Any:
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *extra]
    bpe = _bpe(
        specials,
        pre_tokenizers.ByteLevel.alphabet(),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    )
    rest = {"additional_special_tokens": specials[1:], "chat_template": CHAT}
    if not VERSION_4:
        return transformers.Qwen2Tokenizer(**bpe, **rest)
    built = tokenizers.Tokenizer(models.BPE(**bpe))
    built.normalizer = normalizers.NFC()
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    return transformers.Qwen2TokenizerFast(tokenizer_object=built, **rest)


def glm_tokenizer() -> Any:
    specials = ["<|endoftext|>", "[gMASK]", "<sop>"]
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = tokenizers.Tokenizer(
        models.BPE(**_bpe(specials, pre_tokenizers.ByteLevel.alphabet(), split))
    )
    tokenizer.pre_tokenizer = split
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A", special_tokens=[("[gMASK]", 1), ("<sop>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        padding_side="left",
        eos_token=specials[0],
        pad_token=specials[0],
        additional_special_tokens=specials[1:],
    )


def bert_tokenizer() -> Any:
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *dict.fromkeys([*WORDS.split(), *CHARACTERS]),
        *(f"##{c}" for c in CHARACTERS),
    ]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    if not VERSION_4:
        return transformers.BertTokenizer(vocab=vocab)
    built = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    built.normalizer = normalizers.BertNormalizer(lowercase=True)
    built.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    built.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.BertTokenizerFast(tokenizer_object=built)
