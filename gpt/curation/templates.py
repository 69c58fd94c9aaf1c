"""Entries made by templates: no model, always correct, as many as asked for.

A template is patterns over a card (`cards.py`): {"s"} in, {"upper"} out, in six or more wordings.
"""

import re
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from gpt.curation.cards import (
    asked,
    asked_forms,
    described,
    facts,
    forms,
    kind_card,
    mention,
    number_card,
    opinion,
    report,
    scene_card,
    some_things,
    sums,
    tale,
)

N_ITEMS, JSON_KEYS = {"check": "n_items", "n": "{count}"}, {"check": "json_keys", "keys": "{keys}"}


class Template(NamedTuple):
    name: str
    kind: str
    card: Callable[[Random], dict]
    input: str
    output: str
    wordings: list[str]
    constraints: list[dict]


ROWS = [  # name, kind, card, input, output, wordings, constraints
    # A wording with all slots of the input needs no input; "=>" begins an output of its own.
    ("copy", "rewriting", tale, "{s}", "{s}",
     "Copy the text exactly as it is.|Repeat this sentence word for word: {s}|"
     'Write "{s}" once more, without any change.|Return the input unchanged.|'
     "Please type the following sentence exactly as you see it.|What does the text say? Quote it."),
    ("upper_case", "rewriting", tale, "{s}", "{upper}",
     'Write the sentence in capital letters.|Convert to uppercase: {s}|Rewrite "{s}" using only capital letters.|'
     "Please put this text in upper case.|I need this line in capitals for a poster.|"
     "How does this look in all caps? {s}", {"check": "upper_case"}),
    ("lower_case", "rewriting", tale, "{upper}", "{lower}",
     "Write the sentence in lower case.|Convert to lowercase: {upper}|"
     'Remove every capital letter from this shouted line.|Rewrite "{upper}" in lower-case letters only.|'
     "Please change this text to small letters.|Someone left the caps lock on. Give the text in lowercase.",
     {"check": "lower_case"}),
    ("first_word", "extraction", tale, "{s}", "{first}",
     'What is the first word of the sentence?|Give only the first word: {s}|Write down the first word of "{s}"|'
     "Which word comes first in this text?|Extract the word that begins the sentence.|Find the very first word. {s}",
     {"check": "n_words", "n": 1}),
    ("last_word", "extraction", tale, "{s}", "{last}",
     'What is the last word of the sentence?|Give only the last word: {s}|Write down the last word of "{s}"|'
     "Which word comes last in this text?|Extract the word that ends the sentence.|Find the very last word. {s}",
     {"check": "n_words", "n": 1}),
    ("nth_word", "extraction", tale, "{s}", "{nth_word}",
     'What is the {nth} word of the sentence?|Give the {nth} word: {s}|Name the {nth} word in "{s}"|'
     "Look at the text and write its {nth} word.|Which word stands at position {n}?|"
     "Extract word {n} from this sentence."),
    ("count_words", "reasoning", tale, "{s}", "{count}",
     'How many words does the sentence have?|Count the words: {s}|Give the number of words in "{s}"|'
     "Tell me how many words there are. Answer with a number.|Count the words in the text below.|"
     "How many words can you find here? => The sentence has {count} words."),
    ("replace_word", "rewriting", tale, "{object}", "{changed}",
     'Replace the word "{old}" with "{fresh}".|Change "{old}" to "{fresh}" in this sentence: {object}|'
     "Rewrite the sentence with {fresh} instead of {old}.|Use {fresh} in place of {old}: {object}|"
     'In "{object}", exchange {old} for {fresh}.|'
     'The word "{old}" is wrong here; it must be "{fresh}". Correct the text.'),
    ("remove_word", "rewriting", tale, "{object}", "{bare_object}",
     'Remove the word "{adjective}" from the sentence.|Delete {adjective}: {object}|'
     'Write the text without "{adjective}".|Drop the adjective from "{object}"|'
     "Take the word {adjective} out of this sentence.|Rewrite this so that it does not mention {adjective}.",
     {"check": "excludes", "text": "{adjective}"}),
    ("fix_spelling", "spelling", tale, "{misspelled}", "{s}",
     "Correct the spelling mistake in the sentence.|Fix the misspelled word: {misspelled}|"
     'There is one typo in "{misspelled}" Write the sentence correctly.|Please check the spelling of this text.|'
     "Rewrite the sentence without the spelling error.|One word below is misspelled. Give the corrected sentence."),
    ("find_typo", "spelling", tale, "{misspelled}", "{wrong}",
     "Which word is misspelled?|Find the spelling mistake and write only the wrong word.|"
     "Name the word that is not spelled correctly: {misspelled}|Spot the typo in this sentence.|"
     'Extract the misspelled word from "{misspelled}"|One word has a spelling error. Which one?'),
    ("spell_word", "spelling", some_things, "{word}", "{hyphens}",
     'Spell the word "{word}" letter by letter, with hyphens.|Spell this word with a hyphen between the letters.|'
     "How do you spell {word}? Separate the letters with hyphens.|"
     "Split the word into letters joined by hyphens: {word}|"
     "Write the letters of the word one by one, with hyphens between them.|Hyphenate every letter of {word}."),
    ("fix_word", "spelling", forms, "{wrong}", "{right}",
     'Correct the spelling of "{wrong}".|Fix this word: {wrong}|Write the word correctly.|'
     "The word is misspelled. Spell it right.|How is {wrong} really spelled?|"
     "What is the correct spelling of the word?"),
    ("plural", "grammar", asked_forms, "{one}", "The plural of {one}: {many}",
     "What is the plural of {one}?|Write the plural form of the word.|Give the plural: {one}|"
     "Turn the singular noun into a plural noun.|One {one}, two ... Which word is missing?|"
     "Change the noun {one} to its plural.|How do you say {one} when there are several?"),
    ("singular", "grammar", asked_forms, "{many}", "{one}",
     "What is the singular of {many}? => The singular of {many} is {one}.|Give the singular: {many}|"
     "Write the singular form of the word. => The singular of {many} is {one}.|"
     "Turn the plural noun into a singular noun. => The singular of {many} is {one}.|"
     "Many {many}, but only one ... Complete the sentence. => Many {many}, but only one {one}.|"
     "Change the noun {many} to its singular."),
    ("plural_list", "grammar", asked_forms, "{one_list}", "{one_pairs}",
     "Write each word with its plural: {one_list}|Put the plural behind every noun.|"
     "Make bullet points of {one_list}, each with its plural.|What are the plurals of {one_list}? List them in pairs.|"
     "Give every noun of the list and its plural.|List these nouns, each with its plural: {one_list}",
     {"check": "n_items", "n": 3}),
    ("past_tense", "grammar", forms, "{base}", "{past}",
     'What is the past tense of "{base}"? => The past tense of "{base}" is "{past}".|'
     "Write the past tense of the verb.|Give the simple past of the verb: {base}|"
     "Put the verb {base} in the past tense.|Today I {base}; yesterday I ... Write one word.|"
     "Change this verb so that it tells about yesterday."),
    ("sentence_to_past", "grammar", scene_card, "{Who} {does} {where}.", "{Who} {turned} {where}.",
     "Change the sentence to the past tense.|Rewrite in the simple past: {Who} {does} {where}.|"
     'Put "{Who} {does} {where}." into the past tense.|Say that this happened before now.|'
     "Write the sentence so that it tells about the past.|This is in the present tense. Make it past tense."),
    ("sentence_to_future", "grammar", scene_card, "{Who} {does} {where}.", "{Who} will {do} {where}.",
     'Change the sentence to the future tense with "will".|Rewrite in the future tense: {Who} {does} {where}.|'
     'Put "{Who} {does} {where}." into the future.|Say that this is going to happen, using the word will.|'
     "Write the sentence so that it tells about tomorrow's plan, with will.|Make this future tense with will.",
     {"check": "contains", "text": "will"}),
    ("negative", "grammar", scene_card, "{Who} {does} {where}.", "{Who} {aux} not {do} {where}.",
     'Make the sentence negative.|Rewrite with "not": {Who} {does} {where}.|'
     'Say the opposite of this statement by adding not.|Turn "{Who} {does} {where}." into a negative sentence.|'
     "Change the statement so that it says this is not so.|Negate the sentence."),
    ("make_question", "grammar", scene_card, "{Who} {does} {where}.", "{Aux} {who} {do} {where}?",
     "Turn the statement into a question.|Make a yes-or-no question from this: {Who} {does} {where}.|"
     'Rewrite "{Who} {does} {where}." as a question.|Change the sentence so that it asks something.|'
     'Form a question that begins with "{Aux}".|Ask whether this is true.', {"check": "ends_with", "text": "?"}),
    ("pronoun", "grammar", scene_card, "{Who} {does} {where}.", "{Pronoun} {does} {where}.",
     'Replace the person with "he", "she" or "they".|Use a pronoun for the subject: {Who} {does} {where}.|'
     'Rewrite "{Who} {does} {where}." and start with a pronoun.|Exchange the subject of the sentence for a pronoun.|'
     'Write the sentence with "{pronoun}" instead of "{who}".|Who is meant? Say it with a pronoun only.'),
    ("capital_and_stop", "grammar", scene_card, "{who} {did} {when}", "{Who} {did} {when}.",
     "Add a capital letter and a full stop.|Correct the punctuation and capitals: {who} {did} {when}|"
     "Write this as a proper sentence.|Punctuate the sentence and begin it with a capital letter.|"
     'Fix "{who} {did} {when}" so that it starts and ends correctly.|'
     "The writer forgot the capital and the period. Add them.", {"check": "ends_with", "text": "."}),
    ("join_sentences", "grammar", asked, "{first_fact}. {second_fact}.", "{first_fact} and {second_small}.",
     'Join the two sentences with "and".|Combine into one sentence: {first_fact}. {second_fact}.|'
     "Make one sentence out of two, using and.|Connect both sentences with the word and.|"
     'Merge "{first_fact}." and "{second_fact}."|Write the two short sentences as a single long one.',
     {"check": "one_sentence"}),
    ("article", "grammar", forms, "{noun}", "{phrase}",
     'Write "a" or "an" before the words.|Add the right article, a or an: {noun}|Is it a or an? {noun}|'
     'Complete with a or an: ___ {noun}|Put the correct indefinite article in front of "{noun}".|'
     "Choose between a and an and write the whole phrase."),
    ("comparative", "grammar", asked_forms, "{plain}", "{more}",
     "What is the comparative of {plain}? => The comparative of {plain} is {more}.|Give the comparative: {plain}|"
     "Write the comparative form of the adjective. => The comparative of {plain} is {more}.|"
     "This one is {plain}, but that one is even ... Complete the sentence. "
     "=> This one is {plain}, but that one is even {more}.|"
     "Change the adjective so that it compares two things. => The comparative of {plain} is {more}.|"
     "Compare two things with the adjective {plain}. Write only its form."),
    ("comparative_list", "grammar", asked_forms, "{plain_list}", "{more_lines}",
     "Write the comparative of each adjective as bullet points: {plain_list}|"
     "Turn these adjectives into comparatives, one on a line.|"
     "Give the comparatives of {plain_list}, each after a dash.|Compare with each of these words. Use bullets.|"
     "Put every adjective of the list into the comparative, line by line.|"
     "Make these words comparative and list them in bullet points: {plain_list}", {"check": "n_items", "n": 3}),
    ("superlative", "grammar", forms, "{plain}", "{most}",
     'What is the superlative of "{plain}"? => The superlative of "{plain}" is "{most}".|'
     "Write the superlative form of the adjective.|Give the superlative: {plain}|"
     "This is {plain}, and of all of them it is the ... Complete.|"
     "Change the adjective so that it describes the top of a group.|Write the highest degree of {plain}."),
    ("opposite", "antonyms", asked_forms, "{yes}", "The opposite of {yes}: {no}",
     "What is the opposite of {yes}?|Give an antonym: {yes}|Write a word with the opposite meaning.|"
     "Find the opposite of the given word.|Name one antonym for {yes}.|Which word means the contrary?"),
    ("opposite_list", "antonyms", asked_forms, "{yes_list}", "{yes_pairs}",
     "Write each word with its opposite: {yes_list}|Put the opposite behind every word.|"
     "Make bullet points of {yes_list}, each with its antonym.|"
     "What are the opposites of {yes_list}? List them in pairs.|Give every word of the list and its contrary.|"
     "List these words, each with an antonym: {yes_list}", {"check": "n_items", "n": 4}),
    ("synonym", "synonyms", forms, "{like}", "{alike}",
     'What is a synonym for "{like}"? => A synonym for "{like}" is "{alike}".|Give a synonym: {like}|'
     "Write a word with the same meaning.|Find another word for the given one.|"
     "Name one word that means almost the same as {like}.|Which word could stand in its place?"),
    ("sort_words", "reasoning", some_things, "{words}", "{sorted}",
     "Sort the words alphabetically.|Put these words in alphabetical order: {words}|Arrange the list from A to Z.|"
     "Order the following by their first letters.|Alphabetize: {words}|"
     "Which order would these words have in a dictionary?"),
    ("begins_with", "reasoning", some_things, "{words}", "{one}",
     'Which word begins with the letter "{letter}"?|Find the word that starts with {letter}: {words}|'
     "Choose the word whose first letter is {letter}.|Pick the one that begins with {letter} from {words}.|"
     "One of these words starts with {letter}. Write it.|Name the item beginning with {letter}."),
    ("longer_word", "reasoning", some_things, "{two}", "{longer}",
     "Which word is longer, {two}? => {Longer} is longer.|Write the longer of the two words.|"
     "Which of these has more letters: {two}?|Compare the words and give the longer one.|"
     "Choose the word with the greater number of letters.|Of {two}, which takes more letters to write?"),
    ("repeat_word", "generation", some_things, "{word}", "{repeated}",
     'Write the word "{word}" {times} times.|Repeat the word {times} times, with spaces between.|'
     "Say {word} {times} times in a row.|Type this word {times} times on one line.|Give me {word} times {digit}.|"
     "Print the input {times} times.", {"check": "n_words", "n": "{digit}"}),
    ("commas", "format_conversion", some_things, "{spaces}", "{words}",
     "Separate the words with commas.|Make a comma-separated list: {spaces}|Put a comma between the words.|"
     'Turn "{spaces}" into a list with commas.|Write these words as a comma list.|'
     "Join the words with commas and spaces.", {"check": "n_comma_items", "n": "{count}"}),
    ("lines_to_commas", "format_conversion", some_things, "{lines}", "{words}",
     "Write the lines as one line with commas.|Join the items with commas.|"
     "Convert this column into a comma-separated list.|Put everything on a single line, separated by commas.|"
     "Make one comma list out of these lines.|I need these items in a row, with commas.",
     {"check": "n_comma_items", "n": "{count}"}),
    ("bullets", "format_conversion", some_things, "{words}", "{dashes}",
     "Turn the list into bullet points.|Write as a bulleted list: {words}|"
     "Make a list with one item per line, each after a dash.|Format these items as bullets.|"
     "Put {words} into bullet points.|Convert the comma list to a bullet list.", N_ITEMS),
    ("numbered_list", "format_conversion", some_things, "{words}", "{numbered}",
     "Make a numbered list.|Number these items: {words}|Write the items as a list with numbers.|"
     "Turn {words} into a numbered list.|Convert the comma list into numbered lines.|"
     "Put each item on its own numbered line.", N_ITEMS),
    ("to_json", "format_conversion", described, "{s}", "{json}",
     "Turn the sentence into JSON with the keys {key_list}.|Extract {key_list} as a JSON object.|"
     "Write this as JSON ({keys}): {s}|Put the facts into a JSON object. Keys: {keys}.|"
     "Return JSON with exactly these keys: {keys}.|Convert to JSON using {key_list}. {s}", JSON_KEYS),
    ("find_color", "extraction", mention, "{color_text}", "{color}",
     "Which color is mentioned?|Extract the color: {color_text}|Name the color in the sentence.|"
     'Find the color word in "{color_text}"|What color does the text speak of? Answer with one word.|'
     "Write only the color."),
    ("find_animal", "extraction", mention, "{animal_text}", "{animal}",
     "Which animal is mentioned?|Extract the animal: {animal_text}|Name the animal in the sentence.|"
     'Find the animal in "{animal_text}"|What animal does the text speak of? Answer with one word.|'
     "Write only the animal."),
    ("find_city", "extraction", mention, "{city_text}", "{city}",
     "Which city is mentioned?|Extract the city: {city_text}|Name the city in the sentence.|"
     'Find the name of the city in "{city_text}"|What place does the text speak of?|Write only the city.'),
    ("find_number", "extraction", mention, "{number_text}", "{n}",
     "Which number is mentioned?|Extract the number: {number_text}|Give the number in the sentence.|"
     'Find the number in "{number_text}"|How many {goods} are there? Answer with the number only.|'
     "Write only the number."),
    ("find_day", "extraction", mention, "{day_text}", "{day}",
     "Which day of the week is mentioned?|Extract the day: {day_text}|Name the day in the sentence.|"
     'Find the day of the week in "{day_text}"|On what day is it? Answer with one word.|Write only the day.'),
    ("who", "question_answering", asked, "{facts}", "{who_answer}",
     "{who_question}|Answer the question from the text: {who_question}|Use the text to answer. {who_question}|"
     "According to the text, {who_small}|{facts} {who_question}|Read the text and tell me: {who_small}"),
    ("where", "question_answering", asked, "{facts}", "{where_answer}",
     "{where_question}|Answer the question from the text: {where_question}|Use the text to answer. {where_question}|"
     "According to the text, {where_small}|{facts} {where_question}|Read the text and tell me: {where_small}"),
    ("yes_or_no", "question_answering", asked, "{facts}", "{yes_answer}",
     "{yes_question} Answer yes or no.|Yes or no: {yes_question}|Is the answer yes or no? {yes_question}|"
     "{facts} {yes_question} Answer with yes or no.|Decide from the text, yes or no. {yes_question}|"
     "Reply with yes or no. {yes_question}", {"check": "one_of", "options": "yes, no"}),
    ("summary", "summarising", report, "{text}", "{Who} {did} {where}.",
     "Summarize the text in one sentence.|What happened? Answer in one sentence.|"
     "Shorten this to one sentence: {text}|Give the main point as a single sentence.|Write a one-sentence summary.|"
     "Sum up in one short sentence: {text}", {"check": "one_sentence"}),
    ("category", "classification", kind_card, "{member}", "{kind}",
     'Is "{member}" {two_kinds}?|Classify the word. Options: {options}.|'
     "Choose the right category for {member}: {either}.|Sort this word into one of the groups: {options}.|"
     "Which label fits, {either}?|Label the word as {either}.", {"check": "one_of", "options": "{options}"}),
    ("odd_one_out", "classification", kind_card, "{mixed}", "{odd}",
     "Which word does not belong?|Find the odd one out: {mixed}|Three of these are {kinds}. Which one is not?|"
     "Name the word that does not fit with the others.|Pick the one that is different in kind from {mixed}.|"
     "All but one are {kinds}. Write the one that is not."),
    ("name_three", "generation", kind_card, "", "{three}",
     "Name three {kinds}, separated by commas.|List three {kinds} with commas between them.|"
     "Give three examples of {kinds} in a comma-separated list.|Which three {kinds} can you name? Use commas.|"
     "I am looking for three {kinds}. Separate them with commas.|Write down any three {kinds} (comma-separated).",
     {"check": "n_comma_items", "n": 3}),
    ("sentence_with", "generation", tale, "", "{object}",
     'Write a sentence with the words "{adjective}" and "{thing}".|Make a sentence about the {adjective} {thing}.|'
     "Use {adjective} and {thing} together in one sentence.|"
     "Build a short sentence around these words: {adjective}, {thing}.|"
     "Think of a sentence in which the {adjective} {thing} appears.|"
     "I need one sentence that has {adjective} and {thing} in it.",
     {"check": "contains", "text": "{adjective}"}, {"check": "contains", "text": "{thing}"}),
    ("kind_of_sentence", "classification", tale, "{s}", "{ending}",
     "Is this a question or a statement?|Classify as question or statement: {s}|Question or statement?|"
     'Decide whether "{s}" is a question or a statement.|Label the sentence: question or statement.|'
     "Tell me if this asks or states something. Answer with question or statement.",
     {"check": "one_of", "options": "question, statement"}),
    ("sentiment", "classification", opinion, "{s}", "{mood}",
     "Is the sentiment positive or negative?|Classify the review as positive or negative.|Positive or negative? {s}|"
     'Does "{s}" sound positive or negative?|Label the opinion with one word: positive or negative.|'
     "Did the writer like it? Answer positive or negative.", {"check": "one_of", "options": "positive, negative"}),
    ("largest", "reasoning", number_card, "{some}", "{largest}",
     "Which number is the largest?|Find the biggest number: {some}|Give the maximum of these numbers.|"
     "Pick the greatest number from {some}.|What is the highest value in the list?|"
     "Name the number that is greater than all the others."),
    ("smallest", "reasoning", number_card, "{some}", "{smallest}",
     "Which number is the smallest?|Find the lowest number: {some}|Give the minimum of these numbers.|"
     "Pick the smallest number from {some}.|What is the lowest value in the list?|"
     "Name the number that is less than all the others."),
    ("sort_numbers", "reasoning", number_card, "{some}", "{rising}",
     "Sort the numbers from smallest to largest.|Put in ascending order: {some}|"
     "Order the numbers, beginning with the lowest.|Arrange {some} from low to high.|"
     "Rewrite the list with the numbers in rising order.|Sort: {some}"),
    ("add", "arithmetic", sums, "{a} + {b}", "{sum}",
     "What is {a} plus {b}? => {a} plus {b} is {sum}.|Add the two numbers.|Calculate {a} + {b}.|"
     "Find the sum: {a} + {b}|How much is {a} and {b} together?|Work out the addition."),
    ("subtract", "arithmetic", sums, "{a} - {b}", "{difference}",
     "What is {a} minus {b}? => {a} minus {b} is {difference}.|Subtract the second number from the first.|"
     "Calculate {a} - {b}.|Find the difference: {a} - {b}|How much is left if you take {b} from {a}?|"
     "Work out the subtraction."),
    ("story_sum", "arithmetic", sums, "{Who} has {a} {goods} and gets {b} more.", "{Who} has {sum} {goods} now.",
     "How many {goods} does {who} have now?|{Who} has {a} {goods} and gets {b} more. How many are there in all?|"
     "Solve the word problem.|Work out the total number of {goods}.|Add up the {goods} and answer in a sentence.|"
     "Read the problem and give the result in a full sentence."),
    ("number_words", "format_conversion", number_card, "{n}", "{in_words}",
     "Write the number in words.|Spell out the number {n}.|How do you write {n} in words?|"
     "Convert the figure to words.|Put {n} into words.|Write this number as you would say it."),
    ("units", "units", facts, "{n} {big}", "{result} {small}",
     "How many {small} are {n} {big}? => {n} {big} are {result} {small}.|Convert {n} {big} to {small}.|"
     "Convert this to {small}.|Express {n} {big} in {small}.|Give the same amount in {small}.|"
     "Change the unit to {small}: {n} {big}"),
    ("day_after", "question_answering", facts, "{day}", "{next}",
     "Which {unit} comes after {day}? => {next} comes after {day}.|Name the next {unit}.|What {unit} follows {day}?|"
     "Give the {unit} right after this one.|After {day} comes ... Complete with one word.|"
     "Write the {unit} that comes next."),
    ("day_before", "question_answering", facts, "{day}", "{before}",
     "Which {unit} comes before {day}? => {before} comes before {day}.|Name the previous {unit}.|"
     "What {unit} is just ahead of {day}?|Give the {unit} right before this one.|"
     "Before {day} comes ... Complete with one word.|Go back one {unit}."),
    ("capital", "question_answering", facts, "{country}", "{city}",
     "What is the capital of {country}? => The capital of {country} is {city}.|Name the capital city of the country.|"
     "Which city is the capital of {country}?|Give the capital: {country}|"
     "Write the capital that belongs to this country.|"
     "Tell me the capital city of {country}. => The capital city of {country} is {city}."),
    ("young_animal", "question_answering", facts, "{animal}", "{baby}",
     "What is a young {animal} called? => A young {animal} is called a {baby}.|Name the baby of this animal.|"
     "What do we call the baby of a {animal}?|Give the word for a young {animal}.|"
     "Write the name for the young of this animal.|How is a very young {animal} named?"),
    ("translate", "translation", facts, "{english}", "{foreign}",
     "Translate the word into {language}.|"
     'What is "{english}" in {language}? => In {language}, "{english}" is "{foreign}".|'
     "How do you say {english} in {language}?|Give the {language} word: {english}|"
     'Write this English word in {language}.|Translate "{english}" from English to {language}.'),
]  # fmt: skip
TEMPLATES = [Template(*row[:5], row[5].split("|"), list(row[6:])) for row in ROWS]


def make_entries(n_per_template: int, seed: int) -> list[dict]:
    """`n_per_template` entries of every template, all different, the wordings in turn."""
    entries, seen = [], set()
    for template in TEMPLATES:
        rng, made = Random(f"{seed} {template.name}"), []
        for _ in range(100 * n_per_template + 100):
            if len(made) == n_per_template:
                break
            try:
                entry = make_entry(rng, template, len(made))
            except KeyError:  # this card lacks the facet
                continue
            if (entry["instruction"], entry["input"]) not in seen:
                seen.add((entry["instruction"], entry["input"]))
                made.append(entry)
        if len(made) < n_per_template:
            raise ValueError(f"template {template.name!r} has only {len(made)} different entries: ask for fewer")
        entries += made
    return entries


def make_entry(rng: Random, template: Template, number: int) -> dict:
    """One entry of the template in wording `number` (counted round); KeyError if the card drawn does not serve."""
    name, kind, draw, text, output, wordings, constraints = template
    card = draw(rng)
    ask, _, own_output = wordings[number % len(wordings)].partition(" => ")
    entry = {"instruction": ask.format(**card), "input": "" if slots(text) <= slots(ask) else text.format(**card)}
    entry |= {"output": (own_output or output).format(**card), "kind": kind, "source": f"template:{name}"}
    return entry | ({"constraints": [fill(c, card) for c in constraints]} if constraints else {})


def slots(pattern: str) -> set[str]:
    return set(re.findall(r"{(\w+)}", pattern))


def fill(constraint: dict, card: dict) -> dict:
    """The constraint with the card's values; numbers as numbers, lists as lists."""
    filled = {k: v.format(**card) if isinstance(v, str) else v for k, v in constraint.items()}
    for key, convert in (("n", int), ("keys", lambda v: v.split(", ")), ("options", lambda v: v.split(", "))):
        if key in filled:
            filled[key] = convert(filled[key])
    return filled
