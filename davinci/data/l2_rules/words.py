"""Words and sentences as the published rules count them.

Gopher, FineWeb and C4 count words and sentences; datatrove, with which FineWeb was made, takes spaCy's English
tokenizer and sentencizer. The same rules stand here, written for one thing only, counting: text falls apart at white
space, and what a piece of text becomes (punctuation off both ends, contractions, what stands between letters) is
remembered, since most pieces have been seen before. docs/data_operations.md says how often words differ.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import chain

import regex

from davinci.data.long_texts import LONG, stretches

_REMEMBERED = 1 << 18  # pieces; then memory is given back and they are worked out anew
_LONGEST_REMEMBERED = 40
_LONGEST_SUFFIX, _LONGEST_ADDRESS = 64, 2048  # characters; what is longer is no such thing

# What spaCy calls punctuation, quotes and symbols; the hyphen, the slash and the bar are none of them.
_PUNCTUATION = r"…,:;!?¿؟¡()\[\]{}<>_#*&。？！，、；：～·।،۔؛٪"
_QUOTES = r"'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉⟦⟧"
_CURRENCY = r"\p{Sc}"
_SYMBOL = r"\p{So}"
_UNITS = (
    "km²|km³|km|m²|m³|m/s|mph|mbar|mm²|mm³|mm|mb|mg|MB|Mb|m|dm²|dm³|dm|cm²|cm³|cm|ha|µm|nm|yd|in|ft|kg|kmh|kPa|kb|KB|g|"
    "µg|t|lb|oz|hPa|Pa|gb|GB|tb|TB|T|G|M|K|%"
)
# Letters without case count as both.
_UNCASED = r"\p{Lo}"
_LOWER, _UPPER, _LETTER = rf"\p{{Ll}}{_UNCASED}", rf"\p{{Lu}}{_UNCASED}", r"\p{L}"

_PREFIX = regex.compile(rf"[§%=—–]|\+(?!\d)|\.\.+|…+|[{_PUNCTUATION}{_QUOTES}{_CURRENCY}]|{_SYMBOL}", regex.V1)
_SUFFIX = regex.compile(
    rf"(?:\.\.+|…+|[{_PUNCTUATION}{_QUOTES}—–]|{_SYMBOL}|['’][sS]|(?<=\d)\+|(?<=°[FfCcKk])\.|(?<=\d)(?:{_CURRENCY}|{_UNITS})"
    rf"|(?<=[\d{_LOWER}%²\-+{_PUNCTUATION}{_QUOTES}|])\.|(?<=[{_UPPER}][{_UPPER}])\.)$",
    regex.V1,
)
_INFIX = regex.compile(
    rf"\.\.+|…|{_SYMBOL}|(?<=\d)[+\-*^](?=[\d-])|(?<=[{_LOWER}{_QUOTES}])\.(?=[{_UPPER}{_QUOTES}])"
    rf"|(?<={_LETTER}),(?={_LETTER})|(?<=[{_LETTER}\d])(?:---?|——|[-–—~])(?={_LETTER})"
    rf"|(?<=[{_LETTER}\d])[:<>=/](?={_LETTER})",
    regex.V1,
)
_ADDRESS = regex.compile(
    r"(?:[\w+.-]{2,}://)?(?:\S+@)?(?:(?:[A-Za-z0-9\u00a1-\uffff][A-Za-z0-9\u00a1-\uffff_-]{0,62})?[A-Za-z0-9\u00a1-\uffff]\.)+"
    rf"[{_LOWER}]{{2,63}}(?::\d{{2,5}})?(?:[/?#]\S*)?"
)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _either(words: str) -> str:
    """An alternation of words, each as it is and with a capital."""
    return "|".join(f"{word}|{word.title()}" for word in words.split())


_PERSONS = "i you we they who what when where why how there these those"
_CONTRACTIONS = [
    regex.compile(pattern)
    for pattern in (
        rf"({_either('ca could do does did had may might must need ought sha should wo would')})(n['’]?t)(['’]?ve)?",
        rf"({_either('ai are is was were have has dare')})(n['’]?t)",
        r"([iI])(['’]?m)(a)?",
        rf"({_either(f'he she it that this {_PERSONS}')})(['’]?(?:ll|d))(['’]?ve)?",
        rf"({_either(_PERSONS)})(['’]?ve)",
        rf"({_either(_PERSONS)})(['’]?re)",
        rf"({_either('he she it who what when where why how there that this')})(['’]?s)",
        rf"({_either('could might must should would')})(['’]?ve)",
        r"(1[0-2]|[1-9])([ap]m|[ap]\.m\.)",
        rf"({_either('can')})(not)|({_either('gon')})(na)|({_either('got')})(ta)|({_either('let')})(['’]s)|([cC]['’]m)(on)|(y['’]?)(all)",
    )
]
_NOT_CONTRACTED = _set("Ill ill Its its Hell hell Shell shell Shed shed were Were Well well")
_ABBREVIATIONS = _set(
    """
    Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. Kan. Kans.
    Ky. La. Mar. Mass. Mich. Minn. Miss. Mt. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. S.C.
    Sep. Sept. Tenn. Va. Wash. Wis. 'd a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E.
    Inc. Jr. Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s. and/or w/o ma'am Ma'am
    o'clock O'clock o’clock C++ 'em 'll 'nuff 'S 's ‘S ‘s 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout lovin'
    havin' doin' goin' nothin' somethin' ol' ''
    """
) | {f"{letter}." for letter in "abcdefghijklmnopqrstuvwxyzäöü"}

_EMOTICON = regex.compile(
    r":['-]?(?:\){1,3}|\({1,3})|:-?[\]\[}PpOo0*3>XxD/|1]|[;8=]-?[)D]|=-?[\](\[/|3]|[()]-?:|\[-?:|[()\[\]]=|\(-?;|\(-8|[xX]D{1,2}|<3{1,3}|</3"
    r"|[oO0][._][oO0]|\^_+\^|-_+-|>\.[<>]|<\.<|\._\.|;_;|[vV][._][vV]"
)
# Signs that stand between words in web text of any script, and control characters.
SIGNS = "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»" + "".join(
    map(chr, (*range(9), *range(11, 13), *range(13, 32), *range(127, 160)))
)
# A sentence ends with one of these (Unicode's Sentence_Terminal), as spaCy's sentencizer has it.
TERMINATORS = regex.compile(r"[\p{Sentence_Terminal}]")
_CLOSING = regex.compile(r"\p{P}+")


class _Pieces(dict[str, tuple[str, ...]]):
    """What each piece of text between white space becomes; worked out when first asked for."""

    def __missing__(self, piece: str) -> tuple[str, ...]:
        words = _split(piece)
        if len(piece) <= _LONGEST_REMEMBERED:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[piece] = words
        return words


_pieces = _Pieces()


def words_in(text: str) -> Iterator[list[str]]:
    """The words of a text, in order, some at a time where it is long; punctuation marks are words too."""
    return map(words_of, stretches(text))


def words_of(text: str) -> list[str]:
    """All of them at once: some sixty bytes each, for the time being."""
    return _remembered(text) if len(text) <= 2 * LONG else _words(text)


def _words(text: str) -> list[str]:
    return list(chain.from_iterable(map(_pieces.__getitem__, text.split())))


_remembered = functools.lru_cache(maxsize=1)(_words)  # the rules of a chain count the words of one text, one by one


def sentences_in(line: str, enough: int) -> int:
    """How many sentences a line holds; counting stops at `enough`."""
    count, ended = 1 if line.strip() else 0, False
    for word in words_of(line):
        is_end = len(word) == 1 and TERMINATORS.match(word) is not None
        if ended and not is_end and not _CLOSING.fullmatch(word):
            count, ended = count + 1, False
            if count >= enough:
                break
        elif is_end:
            ended = True
    return count


def _split(piece: str) -> tuple[str, ...]:
    before: list[str] = []
    after: list[str] = []
    begin, end = 0, len(piece)  # of what is left: a piece may be a megabyte, and is not copied at each step
    while begin < end and _whole(piece, begin, end) is None:
        prefix = _PREFIX.match(piece, begin, end)
        inner = prefix.end() if prefix else begin
        if begin < inner < end and _whole(piece, inner, end) is not None:
            before.append(piece[begin:inner])
            begin = inner
            break
        suffix = _SUFFIX.search(piece, max(inner, end - _LONGEST_SUFFIX), end)
        outer = suffix.start() if suffix else end
        if suffix and begin < outer and _whole(piece, begin, outer) is not None:
            after.append(piece[outer:end])
            end = outer
            break
        if not prefix and not suffix:
            break
        if prefix:
            before.append(piece[begin:inner])
        if suffix:
            after.append(piece[outer:end])
        begin, end = inner, outer
    middle: tuple[str, ...] = ()
    if begin < end:
        rest = piece[begin:end]
        is_address = len(rest) <= _LONGEST_ADDRESS and _ADDRESS.fullmatch(rest)
        middle = _whole(piece, begin, end) or ((rest,) if is_address else _between(rest))
    return _joined([*before, *middle, *reversed(after)])


def _joined(words: list[str]) -> tuple[str, ...]:
    """Signs that together are an emoticon or an abbreviation become one word again."""
    joined: list[str] = []
    at = 0
    while at < len(words):
        for length in (3, 2):
            whole = "".join(words[at : at + length])
            if (
                at + length <= len(words)
                and len(whole) <= 4
                and (_EMOTICON.fullmatch(whole) or whole in _ABBREVIATIONS)
            ):
                joined.append(whole)
                at += length
                break
        else:
            joined.append(words[at])
            at += 1
    return tuple(joined)


def _whole(text: str, begin: int, end: int) -> tuple[str, ...] | None:
    """The words of a contraction or an abbreviation in a part of a text; None for anything else."""
    if end - begin > 12 or (piece := text[begin:end]) in _NOT_CONTRACTED:
        return None
    if piece in _ABBREVIATIONS or _EMOTICON.fullmatch(piece):
        return (piece,)
    for pattern in _CONTRACTIONS:
        if match := pattern.fullmatch(piece):
            return tuple(part for part in match.groups() if part)
    return None


def _between(piece: str) -> tuple[str, ...]:
    words, start = [], 0
    for match in _INFIX.finditer(piece):
        if match.start() == 0:
            continue
        words += [piece[start : match.start()]] * (match.start() > start) + [match[0]]
        start = match.end()
    return (*words, *([piece[start:]] if start < len(piece) else []))
