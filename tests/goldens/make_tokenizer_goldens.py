#!/usr/bin/env python3
"""Makes tests/goldens/tokenizers: small vocabularies of BERT's and XLM-R's kind, and the ids that open_clip's HFTokenizer
gives with them.

Usage: python3 tests/goldens/make_tokenizer_goldens.py    (needs open_clip_torch, transformers, sentencepiece)
"""
import json
import pathlib
import random
import tempfile

import sentencepiece
from open_clip.tokenizer import HFTokenizer

OUT = pathlib.Path(__file__).parent / "tokenizers"
SENTENCES = """a photo of a red circle beside two blue squares on a green field
the small striped triangle stands left of a large dotted star; it isn't moving!
Uber den Hugel ging ein alter Mann mit seinem Hund, 12 Schafen und 3,5 Katzen
un caf\u00e9 cr\u00e8me \u00e0 c\u00f4t\u00e9 de la gar\u00e7onni\u00e8re, na\u00efve fa\u00e7ade
\u043a\u0440\u0430\u0441\u043d\u044b\u0439 \u043a\u0440\u0443\u0433 \u0438 \u0441\u0438\u043d\u0438\u0439 \u043a\u0432\u0430\u0434\u0440\u0430\u0442 \u0440\u044f\u0434\u043e\u043c
\u039f\u0394\u039f\u03a3 \u03ba\u03b1\u03b9 \u03bf\u03b4\u03cc\u03c2 \u03c3\u03c4\u03bf\u03bd \u03ae\u03bb\u03b9\u03bf
\u4e00\u5f20\u7ea2\u8272\u5706\u5708\u7684\u7167\u7247 \u3072\u3089\u304c\u306a\u3068\u30ab\u30bf\u30ab\u30ca \ud55c\uad6d\uc5b4 \ubb38\uc7a5
\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd""".splitlines()
SPECIALS = ["[SEP]", "[CLS]", "[MASK]", "[UNK]", "[PAD]", "<s>", "</s>", "<mask>", "<unk>", "<pad>", "\ufe64s\ufe65"]
ODD = ["", " ", "\t\n", "x" * 100, "x" * 101, "\u00e9" * 100, "##ing", "a\u0301\u0300e", "I\u0130\u0131\u03a3", "\u2122\u0301",
       "e\u0340\u0301", "a\u2581b \u2581c", "\u2581", "\u1100\u1161\u11a8", "\ud55c\u0301", "\U0001f469\u200d\U0001f469\u200d\u2122\u0301",
       "\U0001f1e9\U0001f1ea\U0001f1eb", "\u0600a", "a\u0903\u0301", "\u00ad\u200b\ufeffa", "a\u3000b\u00a0c", "\ufb01\u2460\u33a1",
       "a&amp;b &lt;s&gt;", "\u201cquotes\u201d", "\U0002a6d6\uf900\u9fff", "don't...stop--now", "_a_", "$5+5=10^1", "\u0958\u0929"]


def texts():
    random_ = random.Random(5)
    out = SENTENCES + ODD + SPECIALS + [f"a {s}b {s.upper()} c" for s in SPECIALS]
    letters = [c for s in SENTENCES + ODD for c in s]
    for _ in range(400):
        text = "".join(random_.choice(letters) if random_.random() < 0.8 else " " for _ in range(random_.randint(1, 24)))
        if random_.random() < 0.2:
            text += random_.choice(SPECIALS) + random_.choice(SENTENCES)[:12]
        out.append(text)
    words = " ".join(SENTENCES).split()
    return out + [" ".join(random_.choices(words, k=random_.randint(1, 30))) for _ in range(100)]


def bert_vocabulary():
    """Letters, their forms inside words, and frequent parts of the sentences' words."""
    from tokenizers import BertWordPieceTokenizer
    t = BertWordPieceTokenizer(lowercase=True)
    t.train_from_iterator(SENTENCES * 3, vocab_size=420, show_progress=False)
    return [piece for piece, _ in sorted(t.get_vocab().items(), key=lambda item: item[1])]


def rules():
    """A few of NFKC's: single letters, pairs, one that becomes a blank, ideographic and joined blanks."""
    table = {"\u2122": "TM", "\ufb01": "fi", "\u2460": "1", "\u33a1": "m2", "\ufe64": "<", "\ufe65": ">", "\u3000": " ", "\u200b": " ",
             "\u2581": " ", "\u0340": "\u0300", "e\u0301": "\u00e9", "\u1100\u1161": "\uac00", "\u0958": "\u0915\u093c",
             "\u0600": "", "\U0001f1e9": "D"}
    code = lambda text: " ".join(f"{ord(c):X}" for c in text)
    return "".join(f"{code(a)}\t{code(b)}\n" for a, b in table.items())


def main():
    OUT.mkdir(exist_ok=True)
    (OUT / "bert").mkdir(exist_ok=True)
    (OUT / "bert" / "vocab.txt").write_text("\n".join(bert_vocabulary()) + "\n", encoding="utf-8")
    (OUT / "bert" / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}\n')
    (OUT / "xlm_roberta").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "corpus.txt").write_text("\n".join(SENTENCES * 3), encoding="utf-8")
        (folder / "rules.tsv").write_text(rules(), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / "corpus.txt"), model_prefix=str(folder / "m"), vocab_size=330, model_type="unigram",
            normalization_rule_tsv=str(folder / "rules.tsv"), hard_vocab_limit=False, num_threads=1, minloglevel=2)
        (OUT / "xlm_roberta" / "sentencepiece.bpe.model").write_bytes((folder / "m.model").read_bytes())
    (OUT / "xlm_roberta" / "tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}\n')

    with open(OUT / "ids.jsonl", "w", encoding="ascii") as out:
        makers = {"bert": HFTokenizer(str(OUT / "bert"), context_length=32),
                  "bert_stripped": HFTokenizer(str(OUT / "bert"), context_length=32, strip_sep_token=True),
                  "xlm_roberta": HFTokenizer(str(OUT / "xlm_roberta"), context_length=32)}
        for text in texts():
            row = {"text": text}
            for name, tokenize in makers.items():
                ids = tokenize([text])[0].tolist()
                pad = tokenize.tokenizer.pad_token_id
                while len(ids) > 1 and ids[-1] == pad:
                    ids.pop()
                row[name] = ids  # without the padding
            out.write(json.dumps(row) + "\n")


main()
