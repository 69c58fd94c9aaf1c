"""Balance and diversity: what kinds of tasks a set holds, how hard they are, what they are about, and quotas for each.

Kind and difficulty are told by rules that look at words and lengths: good enough to see that half of a set is trivia,
not to label one entry for sure. `ask_kind` asks a model instead.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence

from gpt.curation.filters import ENGLISH
from gpt.evaluation.judge import without_thoughts
from gpt.text.entries import Entry, words

# The first that fits is the kind; in Chinese and English.
KIND_RULES = {
    "code": r"```|\b(python|java(script)?|c\+\+|sql|html|css|regex|latex|bash|rust|algorithm|pseudo-?code|source code|"
    r"(write|implement|debug|fix|refactor|complete|explain) (the |a |an |this |some |following )*(\w+ )?"
    r"(code|function|program|script|class|query))\b|代码|编程|函数|程序",
    "translation": r"\btranslat\w+|\b(in)?to (english|french|german|spanish|chinese|italian|japanese)\b|翻译|译成",
    "maths": r"\bhow (many|much)\b.*\d|\d.*\bhow (many|much)\b|\b(calculate|compute|solve|equation|sum of|multiply|"
    r"divide|percent|area|perimeter|square root|prove)\b|\d\s*[+×x*/÷]\s*\d|计算|求解|方程|多少",
    "summarising": r"\b(summar\w+|tl;?dr|main (idea|point)s?|key takeaways|in (one|a|two) sentences?|shorten)\b|"
    r"总结|摘要|概括|概述",
    "classification": r"\b(classif\w+|categori[sz]e|sentiment|positive or negative|true or false|which of (the|these)|"
    r"is (it|this|the \w+) .* or|label|identify (which|whether)|odd one|spam|detect (if|whether))\b|"
    r"分类|判断|情感|归类",
    "extraction": r"\b(extract|find (all|the)|list (all )?the .* (in|from|mentioned)|from the (text|passage)|pick out|"
    r"named entit\w+|keywords?)\b|提取|抽取|找出",
    "rewriting": r"\b(rewrite|rephrase|paraphrase|correct|edit|improve|convert|change|replace|simplify|grammar|fix|"
    r"proofread|reword|make .* (polite|formal|shorter)|turn .* into|spelling|reorder|sort)\b|"
    r"改写|修改|润色|改成|纠正|转换|排序",
    "brainstorming": r"\b(brainstorm|ideas?|suggest\w*|recommend\w*|tips|ways to|come up with|list (of )?\w+|"
    r"give me (a list|some|\d+|three|five|ten)|name (some|three|five|\d+)|examples? of)\b|建议|列出|列举|想法|推荐",
    "generation": r"\b(write|compose|create|generate|draft|design|imagine|tell me a)\b|"
    r"^(?!.*\?).*\b(story|poem|essay|letter|email|slogan|tweet|joke|speech|song|plan)\b|写一|撰写|创作|编写|生成|作文|故事|诗",
    "question_answering": r"\?|？|^\W*(who|what|when|where|why|how|which|is|are|does|do|did|can|explain|describe|"
    r"define|tell|compare|discuss)\b|什么|为什么|如何|怎么|谁|哪|解释|介绍|描述|吗",
}
KINDS = [*KIND_RULES, "conversation", "other"]
MAX_LOOKED_AT = 1000  # characters: what is to be done stands at the beginning, and `.*` is slow on long texts
_KIND_PATTERNS = {kind: re.compile(pattern, re.IGNORECASE | re.DOTALL) for kind, pattern in KIND_RULES.items()}


def kind_of(entry: Entry) -> str:
    """The kind that the entry names, or else the one that the rules see in its instruction."""
    if entry.get("kind"):
        return entry["kind"]
    if entry.get("turns"):
        return "conversation"
    text = entry["instruction"][:MAX_LOOKED_AT]
    return next((kind for kind, found in _KIND_PATTERNS.items() if found.search(text)), "other")


def ask_kind(entry: Entry, ask: Callable[[str], str]) -> str | None:
    """The kind that a model names; None where its reply, less what it thinks aloud, names none of them, or several."""
    reply = ask(
        f"What kind of task is this? Reply with one of these words and nothing else: {', '.join(KINDS)}.\n\n"
        f"Task: {entry['instruction']}\n{entry['input'][:500]}".strip()
    )
    said = without_thoughts(reply)
    named = {kind for kind in KINDS if re.search(rf"\b{kind.replace('_', '[ _-]')}\b", said, re.IGNORECASE)}
    return named.pop() if len(named) == 1 else None


# ---- difficulty ----

LEVELS = ("easy", "medium", "hard")
MIX = {"easy": 3.0, "medium": 5.0, "hard": 2.0}
REASONING = re.compile(
    r"\b(why|explain|prove|compare|contrast|analy[sz]e|derive|step[- ]by[- ]step|evaluate|argue|justify|design|"
    r"optimi[sz]e|trade-?offs?|implications?)\b|为什么|解释|分析|比较|证明|推导|论述|逐步", re.IGNORECASE)  # fmt: skip
DEMANDS = re.compile(
    r"\b(must|should|at least|at most|exactly|no more than|without|only|avoid|include|format|each|json|table)\b|"
    r"必须|至少|不超过|不要|格式|每个", re.IGNORECASE)  # fmt: skip


def difficulty(entry: Entry) -> str:
    """easy, medium or hard: by how much is to be read, written, reasoned and heeded."""
    n_prompt, n_output = len(words(entry["instruction"] + " " + entry["input"])), len(words(entry["output"]))
    points = (n_prompt > 30) + (n_prompt > 120) + (n_output > 40) + (n_output > 120)
    points += bool(REASONING.search(entry["instruction"])) + min(len(DEMANDS.findall(entry["instruction"])) // 2, 2)
    points += kind_of(entry) in ("code", "maths", "reasoning")
    return LEVELS[min(points, 2)]


# ---- quotas ----


def mix_quotas(counts: Mapping[Hashable, int], mix: Mapping[Hashable, float], n: int | None = None) -> dict:
    """How many of each to take: `n` in the proportions of the mix, or as many as there can be in them.

    Where there are too few for `n`, all of those are taken and the others keep their share. Raises ValueError for a
    part of the mix of which there is none.
    """
    if missing := [part for part, share in mix.items() if share > 0 and not counts.get(part)]:
        raise ValueError(f"there is no {missing[0]!r} entry for the mix: found {dict(counts)}")
    total = sum(mix.values())
    if n is None:
        n = int(min(counts[part] * total / share for part, share in mix.items() if share > 0) + 1e-9)
    return {part: min(counts.get(part, 0), round(n * share / total)) for part, share in mix.items()}


def within_quotas(labels: Sequence[Hashable], quotas: Mapping[Hashable, int], seed: int = 123) -> list[str | None]:
    """For each label None, or why it goes: its quota is full. Who stays is drawn; a label without quota stays."""
    order = list(range(len(labels)))
    random.Random(seed).shuffle(order)
    taken: Counter[Hashable] = Counter()
    reasons: list[str | None] = [None] * len(labels)
    totals = Counter(labels)
    for i in order:
        label = labels[i]
        if label in quotas and taken[label] >= quotas[label]:
            reasons[i] = f"{label}: {quotas[label]} of {totals[label]} stay"
        taken[label] += 1
    return reasons


# ---- diversity ----


N_EXACT = 20_000  # entries up to which k-means looks at all of them in each step
STOP_WORDS = ENGLISH | frozenset(
    "s t who whose when where why there their its them these those give name between list best some can if into about "
    "out up more most than one were been will would should so but all your our is's 的 了 是 在 和 吗 一 个".split()
)


def content_words(text: str) -> list[str]:
    """The words that say what a text is about."""
    return [word for word in words(text) if word not in STOP_WORDS and not (word.isascii() and len(word) < 3)]


def clusters(entries: Sequence[Entry], n_clusters: int = 20, seed: int = 123) -> tuple[list[int], list[str]]:
    """The cluster of each entry (TF-IDF of its prompt, k-means), and three telling words for each cluster."""
    try:
        from sklearn.cluster import KMeans, MiniBatchKMeans
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ModuleNotFoundError:
        raise ValueError("no module sklearn: pip install -c constraints.txt -e '.[curate]'") from None
    prompts = [entry["instruction"] + " " + entry["input"] for entry in entries]
    vectorizer = TfidfVectorizer(
        analyzer=content_words, min_df=1 if len(entries) < 50 else 2, max_df=0.6, max_features=20_000
    )
    try:
        table = vectorizer.fit_transform(prompts)
    except ValueError:  # all of them are about the same, or have no words
        return [0] * len(entries), ["all"]
    n_clusters = min(n_clusters, len({tuple(row.indices) for row in table}))
    if len(entries) <= N_EXACT:
        found = KMeans(n_clusters, random_state=seed, n_init=3).fit(table)
    else:
        found = MiniBatchKMeans(n_clusters, random_state=seed, n_init=3, batch_size=4096).fit(table)
    terms = vectorizer.get_feature_names_out()
    names = [" ".join(terms[i] for i in centre.argsort()[::-1][:3]) for centre in found.cluster_centers_]
    return found.labels_.tolist(), names


BINS = (0, 1, 5, 10, 20, 50, 100, 200, 500, 1000)  # words


def length_histogram(entries: Sequence[Entry], field: str = "output") -> dict[str, int]:
    """How many entries have how many words in a field."""
    counts = Counter()
    for entry in entries:
        n = len(words(entry[field]))
        counts[max(i for i, low in enumerate(BINS) if n >= low)] += 1
    uppers = [*BINS[1:], None]
    names = [f"{low}" if high == low + 1 else f"{low}-{high - 1}" if high else f"{low}+"
             for low, high in zip(BINS, uppers, strict=True)]  # fmt: skip
    return {name: counts[i] for i, name in enumerate(names)}


VERBS = frozenset(
    "write give create generate list describe explain name find make identify classify summarize summarise rewrite "
    "convert translate compose suggest design provide tell compare calculate compute solve edit correct answer choose "
    "select extract construct develop propose draft build complete analyze analyse determine categorize categorise "
    "suppose imagine outline predict recommend replace rephrase paraphrase sort rank show discuss define brainstorm "
    "arrange add remove change fix formulate organize plan prepare produce put say simplify turn use evaluate "
    "estimate implement invent label match count combine arrange split join mark pick read think take state".split()
)
ENDS_PHRASE = frozenset(
    "of about in on for to from with that which who and or by using as if into at is are was so where when than based "
    "between without whose while because what how why it them your you can".split()
)
NOT_NOUNS = frozenset("a an the this these those each all any me us following given some two three four five".split())


def verb_and_noun(instruction: str) -> tuple[str, str] | None:
    """("write", "story") of "Please write a short story about a fox."; None where no known verb opens a sentence."""
    for sentence in re.split(r"[.!?:;\n]\s*", instruction):
        found = re.findall(r"[a-z]+", sentence.lower())
        start = next((i for i, word in enumerate(found[:4]) if word in VERBS), None)
        if start is None:
            continue
        phrase = found[start + 1 :]
        end = next((i for i, word in enumerate(phrase) if word in ENDS_PHRASE), len(phrase))
        nouns = [word for word in phrase[:end][:5] if word not in NOT_NOUNS]
        if nouns:
            return found[start], _singular(nouns[-1])
    return None


def _singular(noun: str) -> str:
    if noun.endswith("ies") and len(noun) > 4:
        return noun[:-3] + "y"
    return noun[:-1] if noun.endswith("s") and not noun.endswith(("ss", "us", "is")) and len(noun) > 3 else noun


def verb_noun_table(entries: Sequence[Entry], n: int = 12) -> tuple[list[str], list[str], list[list[int]]]:
    """The commonest verbs, the commonest nouns beside them, and how often each pair opens an instruction."""
    pairs = Counter(pair for entry in entries if (pair := verb_and_noun(entry["instruction"])))
    by_verb, by_noun = Counter(), Counter()
    for (verb, _), count in pairs.items():
        by_verb[verb] += count
    verbs = [verb for verb, _ in by_verb.most_common(n)]
    for (verb, noun), count in pairs.items():
        by_noun[noun] += count if verb in verbs else 0
    nouns = [noun for noun, _ in by_noun.most_common(n)]
    return verbs, nouns, [[pairs[verb, noun] for noun in nouns] for verb in verbs]


def even_caps(labels: Sequence[Hashable], n: int) -> dict[Hashable, int]:
    """Quotas that sum to `n` (or to all, if there are fewer) and level the largest groups first."""
    totals = Counter(labels)
    left, quotas = n, {}
    for i, (label, total) in enumerate(sorted(totals.items(), key=lambda item: (item[1], str(item[0])))):
        quotas[label] = min(total, left // (len(totals) - i))
        left -= quotas[label]
    return quotas
