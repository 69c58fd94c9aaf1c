"""Toxicity: a word list that needs no network, or a classifier.

The words are better-profanity's; its own matcher takes some 40 ms for a row of 25 words, ours looks words up in a set.
Four in ten of its 900 words have an everyday or a medical sense ("god", "Dick Van Dyke", "Nazi Germany", "uterus"):
these are left out, as with them 6% of a trivia set would go. What is left are insults, slurs and obscenities.
A list knows words and not what is said; `detoxify` (a classifier, downloaded once) knows a little more.
"""

import re
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import regex

from gpt.curation.filters import Filter, texts_of
from gpt.text.entries import SPACELESS, Entry, words

EVERYDAY = frozenset(
    """
    clitoris fingering lmao lmfao niggle stiffy
    1 2 anus areole arian aryan asanchez ass asses auto autoerotic bang bastard bimbo bimbos bitch bitches blue
    bondage boner booty breasts brown bull busty call carpet chink cipa club cock cocks coon cow cowgirl cowgirls
    crap crotch cum cumming cup damn deep dick dink dinks dog doggie dogging doggy dong doofus dopey drunk dummy
    dyke dykes ejaculate ejaculated ejaculates ejaculating ejaculation enlargement erect erection erotic erotism
    extacy extasy facial fag fags fanny fart fat feck fisted fisty flange floozy fondle foobar fook foot foreskin
    freex frigg frigga fubar gae gai gang ganja gay gaylord gays gey gigolo girl girls glans god golden gonad
    gonads gringo guido hand hebe hell hemp heroin herp herpes herpy heshe hitler hiv hoar hoare hoer homey homo
    hooch hookah hooker hoor hootch hooter hooters hore hump humped humping hussy hymen inbred incest injun jackass
    jap jerk jerked job jokey junkie junky kawk kill kinky kkk klan knob kock kraut kum labia lech len leper
    lesbians lesbos lez loin loins lube lust lusting lusty male mams masochist massa master-bate maxi menses
    menstruate menstruation meth molest moron muff muncher murder mutha nad nads naked napalm nappy nazi nazism
    negro nimrod ninny nipple nipples nob nooky nude nudes omg opiate opium oral orally organ orgasm orgasmic
    orgasms orgies orgy ovary ovum ovums paddy pantie panties panty pastie pasty pawn pcp pecker pedophile
    pedophilia pedophiliac pee peepee penetrate penetration penial penile penis perversion peyote phalli phallic
    pimp pinko playboy pms pollock poop porn porno pornography pot potty prick pricks prig pron prostitute prude
    pube pubic pubis punky puss queer queers quicky quim racy rape raped raper raping rapist raunch rectal rectum
    rectus reefer reich revue rimming rum rump ruski sadism sadist sandbar schizo screw screwed screwing scrog
    scrot scrote scrotum scrud scum seaman seamen seduce semen sex sexual shag shagger shaggin shagging she shota
    shower showers sissy skag slave sleaze sleazy slope smut smutty snatch sniper snuff sodom some souse soused
    spac sperm spic spick spik spiks spook spunk steamy stoned strip stroke stupid style suck sucked sucking tampon
    tard tawdry teat teats teste testee testes testical testicle testis three threesome throat throating thrust
    thug tinkle tit titi tits toke toots tosser tramp transsexual trashy tush ugly undies unwed urinal urine uterus
    uzi vag vagina valium viagra virgin vixen vodka vomit voyeur vulgar vulva wad waffle wang wedgie weed weenie
    weiner weirdo wench whitey whiz willies willy womb woody wop wtf x-rated2g1c xx xxx yaoi yury
    """.split()
)
PHRASES_KEPT = frozenset({"blow job", "carpet muncher", "golden shower", "hand job", "jack off", "jerk off"})
LOOKALIKES = str.maketrans("013457@$!", "oieastasi")  # f@gg0t
UNPARTED = regex.compile(
    rf"[{SPACELESS}\p{{Hangul}}\p{{So}}]"
)  # written without spaces, or grown together as in Korean
TOKEN = re.compile(r"[a-z0-9@$!*]+(?:-[a-z]+)*")


def _missing(module: str) -> ValueError:
    return ValueError(f"no module {module}: pip install -c constraints.txt -e '.[curate]'")


@cache
def insults() -> frozenset[str]:
    """Lower-case words and phrases of two words."""
    try:
        import better_profanity
    except ModuleNotFoundError:
        raise _missing("better_profanity") from None
    path = Path(better_profanity.__file__).with_name("profanity_wordlist.txt")
    listed = {line.strip().lower().rstrip("*") for line in path.read_text(encoding="utf-8").splitlines()}
    return frozenset(
        word for word in listed if word and (word in PHRASES_KEPT if " " in word else word not in EVERYDAY)
    )


def find_insult(text: str, listed: frozenset[str] | None = None) -> str | None:
    """The first word or phrase of the list in a text: as it is, with signs for letters, or with stars in it."""
    listed = insults() if listed is None else listed
    found = TOKEN.findall(text.lower())
    for token in found:
        bare = token.strip("*!@$")
        if bare in listed or (not bare.isalpha() and bare.translate(LOOKALIKES) in listed and not bare.isdigit()):
            return bare
        if "*" in bare and sum(map(str.isalpha, bare)) > 1 and _fits_stars(bare, listed):
            return bare
    return next((f"{a} {b}" for a, b in pairwise(found) if f"{a} {b}" in listed), None)


def _fits_stars(token: str, listed: frozenset[str]) -> bool:
    pattern = re.compile("".join("[a-z]" if sign == "*" else re.escape(sign) for sign in token))
    return any(pattern.fullmatch(word) for word in listed if len(word) == len(token) and word[0] == token[0])


def check_words(entry: Entry, listed: frozenset[str] | None = None) -> str | None:
    """A filter: insults, slurs and obscenities in any text of an entry."""
    for field, text in texts_of(entry):
        if word := find_insult(text, listed):
            return f'toxic word: "{word}" in the {field}'
    return None


class WordList(NamedTuple):
    """The words of a file by the way in which they are looked for."""

    words: frozenset[str]  # as those that come with the list, in all their disguises
    phrases: list[str]  # words one after the other, whatever signs are in between; also words with accents
    parts: list[str]  # as they stand, within others too: where words are not parted by spaces


def read_word_list(path: Path) -> WordList:
    """A word or phrase a line. Raises ValueError for a line that nothing could ever match."""
    single, phrases, parts = set(), [], []
    for n, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        word = " ".join(line.lower().split())
        if UNPARTED.search(word):
            parts.append(word)
        elif TOKEN.fullmatch(word) and word.strip("*!@$") == word:
            single.add(word)
        elif words(word):
            phrases.append(" ".join(words(word)))
        elif word:
            raise ValueError(f"{path}: line {n}: {word!r} has no letter and is found nowhere: leave it out")
    return WordList(frozenset(single), phrases, parts)


def make_toxicity_filter(words_file: Path | None = None) -> Filter:
    """`check_words`, with the words of a file (one a line) added, for other languages or stricter tastes."""
    added = read_word_list(words_file) if words_file else WordList(frozenset(), [], [])
    listed = insults() | added.words

    def check(entry: Entry) -> str | None:
        for field, text in texts_of(entry) if added.phrases or added.parts else ():
            spoken, lower = f" {' '.join(words(text))} ", text.lower()
            found = [phrase for phrase in added.phrases if f" {phrase} " in spoken]
            if found := found or [part for part in added.parts if part in lower]:
                return f'toxic word: "{found[0]}" in the {field}'
        return check_words(entry, listed)

    return check


def make_classifier_filter(score: Callable[[str], dict[str, float]] | None = None, threshold: float = 0.5) -> Filter:
    """A filter that asks a classifier, detoxify by default; `score` gives 0..1 for each sort of toxicity."""
    if score is None:
        try:
            from detoxify import Detoxify
        except ModuleNotFoundError:
            raise ValueError("no module detoxify: pip install detoxify (it brings a classifier of 440 MB)") from None
        score = Detoxify("original").predict

    def check(entry: Entry) -> str | None:
        for field, text in texts_of(entry):
            scores = score(text) if text.strip() else {"": 0.0}
            sort, value = max(scores.items(), key=lambda item: item[1])
            if value >= threshold:
                return f"{sort.replace('_', ' ')}: {value:.2f} in the {field}"
        return None

    return check
