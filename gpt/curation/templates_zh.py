"""Chinese entries made by templates: no model, always correct, as `templates.py` makes English ones."""

from random import Random

from gpt.curation.templates import slots

NUMERALS = "零一二三四五六七八九"
CATEGORIES = {
    "水果": "苹果 香蕉 葡萄 西瓜 桃子 草莓 橙子 樱桃".split(),
    "动物": "老虎 兔子 大象 猴子 山羊 松鼠 狐狸 骆驼".split(),
    "颜色": "红色 蓝色 绿色 黄色 紫色 黑色 白色 灰色".split(),
    "交通工具": "火车 飞机 轮船 汽车 自行车 地铁 卡车 帆船".split(),
    "蔬菜": "白菜 萝卜 茄子 黄瓜 菠菜 土豆 洋葱 芹菜".split(),
    "乐器": "钢琴 小提琴 笛子 二胡 吉他 古筝 鼓 琵琶".split(),
}
OPPOSITES = [pair.split("-") for pair in (
    "大-小 高-低 长-短 快-慢 冷-热 新-旧 轻-重 远-近 开-关 前-后 多-少 明亮-黑暗 安静-吵闹 干净-肮脏 "
    "勇敢-胆小 容易-困难 开始-结束 成功-失败 增加-减少 上升-下降 赞成-反对 节约-浪费 诚实-虚伪 寒冷-炎热"
).split()]  # fmt: skip
CAPITALS = dict(pair.split("-") for pair in (
    "中国-北京 法国-巴黎 日本-东京 英国-伦敦 德国-柏林 意大利-罗马 西班牙-马德里 "
    "俄罗斯-莫斯科 埃及-开罗 韩国-首尔 泰国-曼谷 希腊-雅典 葡萄牙-里斯本 奥地利-维也纳 "
    "波兰-华沙 芬兰-赫尔辛基 挪威-奥斯陆 瑞典-斯德哥尔摩 古巴-哈瓦那 秘鲁-利马"
).split())  # fmt: skip
MEASURES = dict(pair.split("-") for pair in (  # noun: its measure word
    "书-本 马-匹 鱼-条 猫-只 纸-张 树-棵 车-辆 花-朵 衣服-件 钢笔-支 椅子-把 桌子-张 帽子-顶 河-条 "
    "镜子-面 信-封 山-座 床-张 雨伞-把 蜡烛-支"
).split())  # fmt: skip
DAYS = "星期一 星期二 星期三 星期四 星期五 星期六 星期日".split()
PEOPLE = "小明 小红 李华 王芳 张伟 爷爷 老师 妹妹".split()
PLACES = "公园 图书馆 学校 河边 超市 院子 车站 厨房".split()
DEEDS = "看书 唱歌 画画 跑步 扫地 下棋 喝茶 等朋友".split()


def in_words(n: int) -> str:
    """A number from 0 to 99 in Chinese characters.

    >>> in_words(40), in_words(17)
    ('四十', '十七')
    """
    tens, ones = divmod(n, 10)
    left = "" if not tens else "十" if tens == 1 else NUMERALS[tens] + "十"
    return left + (NUMERALS[ones] if ones or not tens else "")


def drawn(rng: Random) -> dict[str, str]:
    """A card: the values of all slots, drawn to fit together."""
    kind, other = rng.sample(sorted(CATEGORIES), 2)
    members = rng.sample(CATEGORIES[kind], 3)
    odd = rng.choice(CATEGORIES[other])
    mixed = [*members, odd]
    rng.shuffle(mixed)
    left, right = rng.sample(rng.choice(OPPOSITES), 2)
    country, noun, day = rng.choice(sorted(CAPITALS)), rng.choice(sorted(MEASURES)), rng.randrange(7)
    a, b, n, count = rng.randint(11, 89), rng.randint(2, 10), rng.randint(10, 99), rng.randint(2, 9)
    numbers = rng.sample(range(1, 100), 4)
    who, where, deed = rng.choice(PEOPLE), rng.choice(PLACES), rng.choice(DEEDS)
    return {
        "kind": kind, "other": other, "member": members[0], "odd": odd, "mixed": "、".join(mixed),
        "members": "、".join(members), "lines": "\n".join(f"{i}. {m}" for i, m in enumerate(members, 1)),
        "left": left, "right": right, "country": country, "city": CAPITALS[country],
        "noun": noun, "measure": MEASURES[noun], "count": "两" if count == 2 else in_words(count),
        "day": DAYS[day], "next": DAYS[(day + 1) % 7], "before": DAYS[day - 1],
        "a": str(a), "b": str(b), "sum": str(a + b), "difference": str(a - b), "n": str(n), "words": in_words(n),
        "numbers": "、".join(map(str, numbers)), "rising": "、".join(map(str, sorted(numbers))),
        "largest": str(max(numbers)), "s": f"{who}在{where}{deed}。", "who": who, "where": where, "deed": deed,
        "length": str(len(f"{who}在{where}{deed}")), "reversed": members[1][::-1], "second": members[1],
    }  # fmt: skip


ROWS = [  # name, kind, input, output, wordings
    ("opposite", "antonyms", "{left}", "{right}",
     "写出这个词的反义词。|“{left}”的反义词是什么？|请给出“{left}”的反义词。|哪个词和它的意思相反？"),
    ("capital", "question_answering", "{country}", "{city}",
     "这个国家的首都是哪里？|{country}的首都是哪座城市？|请说出{country}的首都。|写出该国首都的名称。"),
    ("category", "classification", "{member}", "{kind}",
     "“{member}”属于{kind}还是{other}？|判断“{member}”的类别，可选：{kind}、{other}。|“{member}”是{other}还是{kind}？"),
    ("odd_one_out", "classification", "{mixed}", "{odd}",
     "哪个词与其他三个不同类？|找出不属于同一类的词：{mixed}|四个词中哪一个和其他的不是一类？|"
     "挑出不是{kind}的那个词。"),
    ("measure_word", "grammar", "一（ ）{noun}", "一{measure}{noun}",
     "填入合适的量词。|在括号里填上正确的量词：一（ ）{noun}|"
     "“{noun}”前面用什么量词？把短语写完整：一（ ）{noun}|补全量词。"),
    ("add", "arithmetic", "{a} + {b}", "{sum}",
     "计算结果。|{a}加{b}等于多少？|求和：{a} + {b}|算一算这两个数的和。"),
    ("subtract", "arithmetic", "{a} - {b}", "{difference}",
     "计算结果。|{a}减{b}等于多少？|求差：{a} - {b}|算一算还剩多少。"),
    ("number_words", "format_conversion", "{n}", "{words}",
     "把这个数写成汉字。|用汉字写出{n}。|数字{n}用汉字怎么写？|请将阿拉伯数字改写成中文数字。"),
    ("sort_numbers", "reasoning", "{numbers}", "{rising}",
     "把这些数从小到大排列。|按从小到大的顺序排列：{numbers}|请将数字升序排列。|从最小的开始，重新排列这些数。"),
    ("largest", "reasoning", "{numbers}", "{largest}",
     "哪个数最大？|找出最大的数：{numbers}|这几个数里最大的是多少？|写出其中最大的一个。"),
    ("day_after", "question_answering", "{day}", "{next}",
     "后一天是星期几？|{day}的后一天是星期几？|今天是{day}，明天是星期几？|写出它的下一天。"),
    ("day_before", "question_answering", "{day}", "{before}",
     "前一天是星期几？|{day}的前一天是星期几？|今天是{day}，昨天是星期几？|写出它的上一天。"),
    ("who", "extraction", "{s}", "{who}",
     "句子里说的是谁？|谁在{where}{deed}？从句子中找答案。|找出句子的主语：{s}|写出句中的人物。"),
    ("where", "extraction", "{s}", "{where}",
     "这件事发生在哪里？|找出句子中的地点：{s}|{who}在哪里{deed}？根据句子回答。|写出句中提到的地点。"),
    ("negative", "grammar", "{s}", "{who}没有在{where}{deed}。",
     "用“没有”把句子改成否定句。|改成含有“没有”的否定句：{s}|在句子中加上“没有”，使它表示否定。|用“没有”否定这句话。"),
    ("question", "grammar", "{s}", "{who}在{where}{deed}吗？",
     "把句子改成用“吗”的问句。|将陈述句改为带“吗”的疑问句：{s}|在句末加“吗”，变成问句。|用“吗”提问。"),
    ("count_characters", "reasoning", "{s}", "{length}",
     "这句话有几个汉字？标点不算。|数一数汉字的个数，不计标点：{s}|不算标点，句子由多少个汉字组成？|写出句子的字数（不含标点）。"),
    ("numbered_list", "format_conversion", "{members}", "{lines}",
     "把这些词写成带编号的列表。|给每一项编号，每行一项：{members}|转换成编号列表。|每行写一个词，并在前面加序号。"),
    ("reverse", "spelling", "{second}", "{reversed}",
     "把词里的字倒过来写。|将“{second}”的字按相反顺序写出。|从后往前写出这个词的每个字。|“{second}”倒着写是什么？"),
]  # fmt: skip


def make_chinese_entries(n_per_template: int, seed: int) -> list[dict]:
    """`n_per_template` entries of every template, all different, the wordings in turn.

    Raises ValueError if a template has not so many.
    """
    return [entry for row in ROWS for entry in _of_template(row, n_per_template, seed)]


def _of_template(row: tuple[str, ...], n: int, seed: int) -> list[dict]:
    name, kind, text, output, wordings = row
    rng, made, choices = Random(f"{seed} zh {name}"), {}, wordings.split("|")
    for _ in range(60 * n + 60):
        card, wording = drawn(rng), choices[len(made) % len(choices)]
        given = "" if slots(text) <= slots(wording) else text.format(**card)
        entry = {"instruction": wording.format(**card), "input": given, "output": output.format(**card), "kind": kind}
        made.setdefault((entry["instruction"], given), entry | {"source": f"template:zh_{name}"})
        if len(made) == n:
            return list(made.values())
    raise ValueError(f"template zh_{name!r} has only {len(made)} different entries: ask for fewer")
