"""The tokenizer of the pocket model: CLIP's byte-pair encoding over the words of the grammar.

Every word of the grammar is one token; any other word falls apart into shorter pieces, at worst letters.
"""

import itertools
from collections import Counter

from transformers import CLIPTokenizer

from dmpo_app.pocket.language import vocabulary

MAX_TOKENS = 32  # a CLIP tokenizer has 77; the longest prompt of the grammar needs 24
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_letters() -> list[str]:
    """Printable characters that stand for the bytes, as GPT-2 and CLIP use them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    shifted = (chr(256 + i) for i in range(256 - len(printable)))
    return [chr(b) for b in printable] + list(shifted)


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Learn byte-pair merges, most frequent pair first, until every word is one piece."""
    pieces = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for word in pieces for pair in itertools.pairwise(word))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        pieces = [_merge_pair(word, best) for word in pieces]


def _merge_pair(word: list[str], pair: tuple[str, str]) -> list[str]:
    result: list[str] = []
    for piece in word:
        if result and (result[-1], piece) == pair:
            result[-1] += piece
        else:
            result.append(piece)
    return result


def build_tokenizer() -> CLIPTokenizer:
    """Build the tokenizer, ready to be saved with the pipeline."""
    letters = byte_letters()
    merges = learn_merges(vocabulary())
    tokens = [
        *letters,
        *(letter + "</w>" for letter in letters),
        *(first + second for first, second in merges),
        START,
        END,
    ]
    numbered = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(
        vocab=numbered,
        merges=merges,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        unk_token=END,
        model_max_length=MAX_TOKENS,
    )
