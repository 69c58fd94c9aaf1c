"""Refusals: an answer that declines the task, speaks of itself as a model, or asks back, in English or Chinese.

    >>> find_refusal("As an AI language model, I cannot eat.")
    'As an AI language model,'

One table serves both sides: what a teacher has just replied (`curation/replies.py`) and what stands in a set
(`curation/filters.py`). "I'm sorry, I can't come on Friday" is a fine letter: what cannot be done has to be the task.
"""

import re

HEAD = 300  # characters in which a refusal shows; a story may speak of one later
SHORT = 400  # characters of an answer that does nothing but ask back, at most

_TASK = (
    r"(help|assist|answer|provide|fulfil+|complete|comply|do(ing)? (that|this|those|these|so)|generate|create|write|"
    r"produce|perform|access|browse|open|see (the|any|an)|view|discuss|engage|support|process|determine|"
    r"give (you )?(an?|any|the)|offer|respond|recommend|share|continue|verify|predict|translate|express|understand|"
    r"have ([\w-]+ )?(access|enough|information|thoughts|feelings|ability|opinions?|beliefs?|preferences?)|"
    r"form opinions|experience)"
)
_CANNOT = r"(can ?not|can ?'?t|could ?n'?t|won't|will not|do not|don't|must decline to)"
_UNABLE = r"(not able to|unable to|not allowed to|incapable of|not capable of)"
_MODEL = (
    r"((ai|artificial intelligence|(large )?language model|llm|chat ?gpt|chat ?bot|(virtual|chat) assistant)"
    r"( (language|chat))?( (model|assistant|chatbot|system|program))?)"
)
_TRADE = r"(?! (research|engineer|expert|student|scientist|enthusiast|specialist|developer|consultant))"
_APOLOGY = r"((i'm|i am|we're|we are) )?((very|really|so|deeply|truly) )?(sorry|apologi[sz]e|afraid|unfortunately)"

REFUSALS = re.compile(
    # It speaks of itself as a model.
    rf"\bas an? ([\w-]+,? ){{0,4}}?{_MODEL}(,| (i|my|it)\b)|"
    rf"(^|[.!?]\s)\W*(i'm|i am) (just |only )?(an? )?([\w-]+ ){{0,2}}?{_MODEL}\b{_TRADE}|"
    r"against my (programming|guidelines|policy)|\bmy (training data|knowledge cut-?off)\b|"
    # It declines.
    r"^\W*(sorry|my apologies|apologies)[^\w!]*$|"
    rf"^\W*{_APOLOGY}\b[^.\n]{{0,40}}?\b(i|we)( ?{_CANNOT}|( am|'m| are|'re) {_UNABLE}) ({_TASK}|be able to)|"
    rf"^\W*(i|we) {_CANNOT} {_TASK}\b|^\W*(i'm|i am|we are) (\w+ly )?{_UNABLE} {_TASK}\b|"
    r"^\W*(my apologies|sorry)[^.\n]{0,20}\b(that|this) (goes against|violates)|"
    # It asks for what it should have been given.
    r"^\W*(please|could you) (please )?provide (me with )?(the|a|an|more|some) [\w\s]{0,40}"
    r"(text|input|passage|context|information|details|sentences?|article|paragraph)|"
    # The same in Chinese.
    r"(作为|身为)一?[个名位]?(ai|人工智能|大?语言模型|智能助手|虚拟助手)|"
    r"^\W*我(只)?是一?个?(ai|人工智能|大?语言模型)|"
    r"^\W*(很|非常|十分)?(抱歉|对不起|不好意思)\W*$|"
    r"^\W*(很|非常|十分)?(抱歉|对不起|遗憾|不好意思)[^。\n]{0,12}(我|本)?(无法|不能|没有办法|没办法|不可以|不会|没有能力)"
    r"[^。\n]{0,12}(回答|提供|帮助|协助|完成|生成|满足|访问|执行|讨论|处理|写|创建|给出|支持|继续|判断|确定|浏览|获取|理解)|"
    r"^\W*我(无法|不能|没有办法|没办法|没有能力)[^。\n]{0,10}"
    r"(回答|提供|帮助|协助|完成|生成|满足|访问|执行|讨论|处理|给出|浏览|获取)|"
    r"^\W*请(您|你)?提供(更多|具体|相关|需要|要|一?段|原文)", re.IGNORECASE)  # fmt: skip
OPENS_SORRY = re.compile(rf"^\W*(i )?{_APOLOGY}\b", re.IGNORECASE)
ASKS_BACK = re.compile(
    r"\b(can|could|would|will) you\b[^.?]*\b(provide|clarify|explain|rephrase|tell|specify|elaborate|share|give)\b|"
    r"\b(what|which)\b[^.?]*\byou (mean|want|like|need|looking)|\bhow (can|may) i (help|assist)|"
    r"\bdo you have (an?|any|other|another)( other)? questions?\b", re.IGNORECASE)  # fmt: skip


def find_refusal(text: str) -> str | None:
    """The words by which a text declines its task; None for any other, such as a letter that says sorry."""
    text = text.replace("’", "'").strip()
    if found := REFUSALS.search(text[:HEAD]):
        return found[0].strip()
    if len(text) <= SHORT and text.endswith("?") and (sorry := OPENS_SORRY.match(text)):
        question = re.split(r"[.!]\s", text)[-1]
        return f"{sorry[0].strip()} ... {question}" if ASKS_BACK.search(question) else None
    return None
